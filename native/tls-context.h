// One identity's TLS settings: its certificate and key, the roots it trusts, for both roles (spec §8.6).
#pragma once

#include <memory>
#include <openssl/ssl.h>
#include <string>

namespace culvert {

struct TlsMaterial {
  std::string chain_pem;  // leaf first, then intermediates
  const uint8_t* key_der = nullptr;  // PKCS#8 (RFC 5958); read in place, as what is copied would have to be wiped
  size_t key_length = 0;
  std::string roots_pem;
  std::string groups;        // OpenSSL group list
  std::string key_log_path;  // empty: no key log
  bool tls12 = false;        // permits TLS 1.2 too
};

class TlsContext {
 public:
  // Throws std::runtime_error with a text that names what is wrong; key material never appears in it.
  explicit TlsContext(const TlsMaterial& material);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  SSL_CTX* get() const { return context_; }
  int key_log_fd() const { return key_log_fd_; }

 private:
  SSL_CTX* context_ = nullptr;
  int key_log_fd_ = -1;
};

// Index of the TlsSession pointer in an SSL's ex_data.
int SessionIndex();

}  // namespace culvert
