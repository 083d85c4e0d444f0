#include "tls-context.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdexcept>
#include <sys/stat.h>
#include <unistd.h>

#include "tls-session.h"

namespace culvert {
namespace {

constexpr unsigned char kAlpnH2[] = {2, 'h', '2'};
constexpr char kTls12Ciphers[] =
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256";

struct BioDeleter {
  void operator()(BIO* bio) const { BIO_free_all(bio); }
};
using BioPtr = std::unique_ptr<BIO, BioDeleter>;

[[noreturn]] void Fail(const std::string& what) {
  unsigned long code = ERR_get_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  throw std::runtime_error(reason != nullptr ? what + ": " + reason : what);
}

// Without it OpenSSL would ask on the terminal.
int NoPassphrase(char*, int, int, void*) { return 0; }

BioPtr Reader(const std::string& text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// Calls `use` for every certificate in the PEM text, with null for one that cannot be read.
template <typename Use>
void EachCertificate(const std::string& pem, const Use& use) {
  BioPtr bio = Reader(pem);
  while (true) {
    std::unique_ptr<X509, decltype(&X509_free)> certificate(PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr), X509_free);
    unsigned long error = ERR_peek_last_error();
    if (certificate == nullptr && ERR_GET_LIB(error) == ERR_LIB_PEM && ERR_GET_REASON(error) == PEM_R_NO_START_LINE) break;
    use(certificate.get());
  }
  ERR_clear_error();  // the end of the text is reported as an error
}

int SelectAlpn(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in, unsigned in_length, void*) {
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, kAlpnH2, sizeof(kAlpnH2), in, in_length) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  }
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

int Verify(int ok, X509_STORE_CTX* store) {
  SSL* ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  auto* session = static_cast<TlsSession*>(SSL_get_ex_data(ssl, SessionIndex()));
  return session->VerifyPeer(ok == 1, store) ? 1 : 0;
}

void KeyLog(const SSL* ssl, const char* line) {
  auto* session = static_cast<TlsSession*>(SSL_get_ex_data(ssl, SessionIndex()));
  session->OnKeyLogLine(line);
}

/** Throws unless it is a regular file: opening a pipe, or writing to it, can stand the thread still for ever. */
int OpenKeyLog(const std::string& path) {
  const std::string what = "cannot open the TLS key log '" + path + "': ";
  ERR_clear_error();
  int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  // A pipe that nobody reads.
  if (fd < 0) Fail(what + (errno == ENXIO ? "not a regular file" : std::strerror(errno)));
  struct stat status;
  if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) return fd;
  close(fd);
  Fail(what + "not a regular file");
}

}  // namespace

int SessionIndex() {
  static const int index = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, nullptr);
  return index;
}

TlsContext::TlsContext(const TlsMaterial& material) {
  ERR_clear_error();
  context_ = SSL_CTX_new(TLS_method());
  if (context_ == nullptr) Fail("cannot create a TLS context");
  try {
    SSL_CTX_set_min_proto_version(context_, material.tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
    SSL_CTX_set_max_proto_version(context_, TLS1_3_VERSION);
    if (SSL_CTX_set_ciphersuites(context_, "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256") != 1) Fail("cannot set the cipher suites");
    if (material.tls12 && SSL_CTX_set_cipher_list(context_, kTls12Ciphers) != 1) Fail("cannot set the cipher suites of TLS 1.2");
    // Only TLS 1.2 reads and writes through OpenSSL for long.
    SSL_CTX_set_mode(context_, SSL_MODE_RELEASE_BUFFERS);
    if (SSL_CTX_set1_groups_list(context_, material.groups.c_str()) != 1) Fail("cannot set the key exchange groups '" + material.groups + "'");
    // A tunnel is long lived and pooled: no resumption, so no tickets (and the first record after the handshake is ours).
    SSL_CTX_set_options(context_, SSL_OP_NO_TICKET | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_RENEGOTIATION);
    // Compressed certificates (RFC 8879) would cost half of the handshake's time for a few hundred bytes, and bring another
    // decompressor in front of who has not proved anything yet.
    SSL_CTX_set_options(context_, SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION);
    SSL_CTX_set_num_tickets(context_, 0);
    SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_protos(context_, kAlpnH2, sizeof(kAlpnH2));
    SSL_CTX_set_alpn_select_cb(context_, SelectAlpn, nullptr);
    SSL_CTX_set_verify(context_, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, Verify);
    SSL_CTX_set_keylog_callback(context_, KeyLog);

    int roots = 0;
    EachCertificate(material.roots_pem, [&](X509* root) {
      // Roots of others may be among them that only others understand.
      if (root != nullptr && X509_STORE_add_cert(SSL_CTX_get_cert_store(context_), root) == 1) roots++;
    });
    if (roots == 0) Fail("the trust roots contain no usable certificate");
    // What is given as a root is trusted, whoever has signed it: a subordinate CA, or a root known by its cross-signed form.
    X509_STORE_set_flags(SSL_CTX_get_cert_store(context_), X509_V_FLAG_PARTIAL_CHAIN);
    int chain = 0;
    EachCertificate(material.chain_pem, [&](X509* certificate) {
      if (certificate == nullptr) Fail("certificate " + std::to_string(chain + 1) + " of the chain cannot be read");
      int added = chain++ == 0 ? SSL_CTX_use_certificate(context_, certificate) : SSL_CTX_add1_chain_cert(context_, certificate);
      if (added != 1) Fail("certificate " + std::to_string(chain) + " of the chain cannot be used");
    });
    if (chain == 0) Fail("the certificate chain contains no certificate");
    const uint8_t* key_at = material.key_der;
    EVP_PKEY* key = d2i_AutoPrivateKey(nullptr, &key_at, static_cast<long>(material.key_length));
    if (key == nullptr) Fail("the private key cannot be read");
    int used = SSL_CTX_use_PrivateKey(context_, key);
    EVP_PKEY_free(key);
    if (used != 1 || SSL_CTX_check_private_key(context_) != 1) Fail("the private key does not belong to the certificate");

    if (!material.key_log_path.empty()) key_log_fd_ = OpenKeyLog(material.key_log_path);
  } catch (...) {
    SSL_CTX_free(context_);
    throw;
  }
}

TlsContext::~TlsContext() {
  SSL_CTX_free(context_);
  if (key_log_fd_ >= 0) close(key_log_fd_);
}

}  // namespace culvert
