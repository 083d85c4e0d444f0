#include "revocations.h"

#include <cstring>
#include <mutex>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdexcept>

namespace culvert {
namespace {

CrlPtr FromDer(const uint8_t* bytes, size_t n) {
  const uint8_t* at = bytes;
  CrlPtr crl(d2i_X509_CRL(nullptr, &at, static_cast<long>(n)));
  ERR_clear_error();
  if (crl != nullptr && at != bytes + n) crl.reset();  // something follows it
  return crl;
}

CrlSet ReadCrls(const uint8_t* bytes, size_t n) {
  CrlSet lists;
  if (n == 0) return lists;
  std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_mem_buf(bytes, static_cast<int>(n)), BIO_free_all);
  bool is_pem = false;
  while (true) {
    char* name = nullptr;
    char* header = nullptr;
    unsigned char* data = nullptr;
    long length = 0;
    if (PEM_read_bio(bio.get(), &name, &header, &data, &length) != 1) {
      unsigned long error = ERR_peek_last_error();
      ERR_clear_error();
      if (ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE) break;
      throw std::runtime_error("PEM block " + std::to_string(lists.size() + 1) + " is damaged");
    }
    is_pem = true;
    CrlPtr crl;
    bool is_crl = std::strcmp(name, PEM_STRING_X509_CRL) == 0;
    if (is_crl) crl = FromDer(data, static_cast<size_t>(length));
    OPENSSL_free(name);
    OPENSSL_free(header);
    OPENSSL_free(data);
    if (!is_crl) continue;
    if (crl == nullptr) throw std::runtime_error("revocation list " + std::to_string(lists.size() + 1) + " cannot be read");
    lists.push_back(std::move(crl));
  }
  if (is_pem) return lists;
  CrlPtr crl = FromDer(bytes, n);
  if (crl == nullptr) throw std::runtime_error("it is neither PEM nor a revocation list in DER");
  lists.push_back(std::move(crl));
  return lists;
}

// Leaf first, or in any order for roots; what cannot be read is left out.
std::vector<CertificatePtr> Certificates(const std::string& pem) {
  std::vector<CertificatePtr> certificates;
  std::unique_ptr<BIO, decltype(&BIO_free_all)> bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), BIO_free_all);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) certificates.emplace_back(certificate);
  ERR_clear_error();
  return certificates;
}

struct Shared {
  std::mutex mutex;
  std::string digest;  // of what the lists were read from
  std::shared_ptr<const CrlSet> lists;
};

// Of the process: all threads load the addon once.
Shared& LastRead() {
  static Shared shared;
  return shared;
}

}  // namespace

std::shared_ptr<const CrlSet> SharedCrls(const uint8_t* bytes, size_t n) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(bytes, n, digest, &length, EVP_sha256(), nullptr);
  std::string wanted(reinterpret_cast<char*>(digest), length);
  Shared& last = LastRead();
  // Who comes second waits for the first.
  std::lock_guard<std::mutex> lock(last.mutex);
  if (last.lists == nullptr || last.digest != wanted) {
    CrlSet lists = ReadCrls(bytes, n);
    std::unique_ptr<ASN1_INTEGER, SerialDeleter> any(ASN1_INTEGER_new());
    X509_REVOKED* entry = nullptr;
    // The first look-up sorts the list.
    for (const CrlPtr& crl : lists) X509_CRL_get0_by_serial(crl.get(), &entry, any.get());
    last.lists = std::make_shared<const CrlSet>(std::move(lists));
    last.digest = std::move(wanted);
  }
  return last.lists;
}

Issuer::Issuer(X509* of) : certificate(of) { X509_up_ref(of); }

Issuer::~Issuer() { X509_free(certificate); }

void Revocations::Set(std::shared_ptr<const CrlSet> lists) {
  lists_ = std::move(lists);
  generation_++;
  for (auto at = issuers_.begin(); at != issuers_.end();) at = at->second.expired() ? issuers_.erase(at) : std::next(at);
}

PeerChain Revocations::Describe(STACK_OF(X509)* chain) {
  PeerChain links;
  // The root vouches for itself: no list can revoke it.
  for (int i = 0; i + 1 < sk_X509_num(chain); i++) {
    links.push_back({Intern(sk_X509_value(chain, i + 1)),
                     std::unique_ptr<ASN1_INTEGER, SerialDeleter>(ASN1_INTEGER_dup(X509_get0_serialNumber(sk_X509_value(chain, i))))});
  }
  return links;
}

bool Revocations::Revoked(const PeerChain& chain) const {
  for (const ChainLink& link : chain) {
    Issuer& issuer = *link.issuer;
    if (issuer.generation != generation_) {
      issuer.generation = generation_;
      issuer.lists.clear();
      for (const CrlPtr& crl : *lists_) {
        if (X509_NAME_cmp(X509_CRL_get_issuer(crl.get()), X509_get_subject_name(issuer.certificate)) != 0) continue;
        if (X509_CRL_verify(crl.get(), X509_get0_pubkey(issuer.certificate)) == 1) issuer.lists.push_back(crl.get());
      }
      ERR_clear_error();
    }
    for (X509_CRL* crl : issuer.lists) {
      X509_REVOKED* entry = nullptr;
      // 2 stands for an entry that takes a revocation back (removeFromCRL).
      if (X509_CRL_get0_by_serial(crl, &entry, link.serial.get()) == 1) return true;
    }
  }
  return false;
}

bool Revocations::Revoked(const std::string& chain_pem, const std::string& roots_pem) {
  std::vector<CertificatePtr> chain = Certificates(chain_pem);
  std::vector<CertificatePtr> roots = Certificates(roots_pem);
  PeerChain links;
  for (size_t i = 0; i < chain.size(); i++) {
    X509* issuer = nullptr;
    if (i + 1 < chain.size() && X509_check_issued(chain[i + 1].get(), chain[i].get()) == X509_V_OK) issuer = chain[i + 1].get();
    for (size_t r = 0; issuer == nullptr && r < roots.size(); r++) {
      if (X509_check_issued(roots[r].get(), chain[i].get()) == X509_V_OK) issuer = roots[r].get();
    }
    if (issuer == nullptr) break;
    kept_.push_back(Intern(issuer));
    links.push_back({kept_.back(), std::unique_ptr<ASN1_INTEGER, SerialDeleter>(ASN1_INTEGER_dup(X509_get0_serialNumber(chain[i].get())))});
  }
  return Revoked(links);
}

std::shared_ptr<Issuer> Revocations::Intern(X509* certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  X509_digest(certificate, EVP_sha256(), digest, &length);
  std::weak_ptr<Issuer>& place = issuers_[std::string(reinterpret_cast<char*>(digest), length)];
  std::shared_ptr<Issuer> issuer = place.lock();
  if (issuer == nullptr) place = issuer = std::make_shared<Issuer>(certificate);
  return issuer;
}

}  // namespace culvert
