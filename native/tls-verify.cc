// Who the peer is: which of its names is accepted, and in which words another one is refused.
#include <algorithm>
#include <ctime>
#include <openssl/x509v3.h>
#include <utility>

#include "tls-session.h"

namespace culvert {
namespace {

constexpr char kRevoked[] = "connection closed: peer certificate revoked by CRL";

// The trust domain of spiffe://<td>/ns/<ns>/sa/<sa>, empty for anything else (spec §8.1).
std::string TrustDomainOf(const std::string& uri) {
  constexpr char kPrefix[] = "spiffe://";
  if (uri.compare(0, sizeof(kPrefix) - 1, kPrefix) != 0) return "";
  std::vector<std::string> parts;
  size_t start = sizeof(kPrefix) - 1;
  while (true) {
    size_t slash = uri.find('/', start);
    parts.push_back(uri.substr(start, slash == std::string::npos ? slash : slash - start));
    if (slash == std::string::npos) break;
    start = slash + 1;
  }
  bool valid = parts.size() == 5 && parts[1] == "ns" && parts[3] == "sa";
  for (const std::string& part : parts) valid = valid && !part.empty();
  return valid ? parts[0] : "";
}

// URI SANs, in order. One that holds a zero byte or a control character is left out: it could imitate another.
std::vector<std::string> UriNames(X509* certificate) {
  std::vector<std::string> uris;
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  if (names == nullptr) return uris;
  for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    std::string uri(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.uniformResourceIdentifier)),
                    static_cast<size_t>(ASN1_STRING_length(name->d.uniformResourceIdentifier)));
    bool printable = true;
    for (unsigned char c : uri) printable = printable && c > 0x20 && c < 0x7f;
    if (printable) uris.push_back(std::move(uri));
  }
  GENERAL_NAMES_free(names);
  return uris;
}

std::string Joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) {
    if (!text.empty()) text += ", ";
    text += item;
  }
  return text;
}

std::string Iso(const ASN1_TIME* time) {
  std::tm parts{};
  char text[32] = "an unknown time";
  if (ASN1_TIME_to_tm(time, &parts) == 1) std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

// OpenSSL's words, and for what has to do with time the two times: either may be the wrong one.
std::string VerifyErrorText(X509_STORE_CTX* store) {
  int error = X509_STORE_CTX_get_error(store);
  std::string text = X509_verify_cert_error_string(error);
  X509* certificate = X509_STORE_CTX_get_current_cert(store);
  if (certificate == nullptr) return text;
  bool early = error == X509_V_ERR_CERT_NOT_YET_VALID;
  if (!early && error != X509_V_ERR_CERT_HAS_EXPIRED) return text;
  std::unique_ptr<ASN1_TIME, decltype(&ASN1_STRING_free)> now(ASN1_TIME_set(nullptr, std::time(nullptr)), ASN1_STRING_free);
  return text + " (certificate not valid " + (early ? "before " : "after ") +
         Iso(early ? X509_get0_notBefore(certificate) : X509_get0_notAfter(certificate)) + "; this node's clock says " + Iso(now.get()) + ")";
}

}  // namespace

bool TlsSession::VerifyPeer(bool chain_ok, X509_STORE_CTX* store) {
  if (!chain_ok) {
    if (verify_error_.empty()) verify_error_ = VerifyErrorText(store);
    return false;
  }
  if (X509_STORE_CTX_get_error_depth(store) != 0) return true;
  std::vector<std::string> uris = UriNames(X509_STORE_CTX_get_current_cert(store));
  std::vector<std::string> domains;
  bool accepted = false;
  for (const std::string& uri : uris) {
    std::string domain = TrustDomainOf(uri);
    if (!domain.empty()) domains.push_back(domain);
    bool matches = server_ ? !domain.empty() && domain == expectation_.trust_domain
                           : std::find(expectation_.identities.begin(), expectation_.identities.end(), uri) != expectation_.identities.end();
    // The peer is who the accepted name says, never a second name of the same certificate.
    if (matches && !accepted) peer_.identity = uri;
    accepted = accepted || matches;
  }
  if (accepted && expectation_.revocations != nullptr && expectation_.revocations->enabled()) {
    peer_chain_ = expectation_.revocations->Describe(X509_STORE_CTX_get0_chain(store));
    if (expectation_.revocations->Revoked(peer_chain_)) {
      peer_revoked_ = true;
      verify_error_ = kRevoked;
      X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REVOKED);
      return false;
    }
  }
  if (accepted) return true;
  verify_error_ = server_ ? "identity verification error: expected trustdomain (" + expectation_.trust_domain + "), got (" + Joined(domains) + ")"
                          : "identity verification error: peer did not present the expected SAN (" + Joined(expectation_.identities) +
                                "), got (" + Joined(uris) + ")";
  X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);  // the peer is told: bad certificate
  return false;
}

}  // namespace culvert
