// Certificate revocation lists (RFC 5280 §5), and what is remembered of verified peers to compare with later ones
// (spec §8.7). A list counts for certificates whose verified issuer has its name and has signed it; where there is no
// such list, nothing is revoked.
#pragma once

#include <map>
#include <memory>
#include <openssl/x509.h>
#include <string>
#include <vector>

namespace culvert {

struct CrlDeleter {
  void operator()(X509_CRL* crl) const { X509_CRL_free(crl); }
};
using CrlPtr = std::unique_ptr<X509_CRL, CrlDeleter>;
using CrlSet = std::vector<CrlPtr>;

struct CertificateDeleter {
  void operator()(X509* certificate) const { X509_free(certificate); }
};
using CertificatePtr = std::unique_ptr<X509, CertificateDeleter>;

struct SerialDeleter {
  void operator()(ASN1_INTEGER* serial) const { ASN1_INTEGER_free(serial); }
};

// A CA that verified peers have in their chains. Few, and shared by all of them.
struct Issuer {
  explicit Issuer(X509* certificate);
  ~Issuer();
  Issuer(const Issuer&) = delete;
  Issuer& operator=(const Issuer&) = delete;
  X509* certificate;
  uint64_t generation = 0;        // of the lists that `lists` is from
  std::vector<X509_CRL*> lists;   // those that it has signed
};

// One certificate of a verified chain, below the root.
struct ChainLink {
  std::shared_ptr<Issuer> issuer;
  std::unique_ptr<ASN1_INTEGER, SerialDeleter> serial;
};
using PeerChain = std::vector<ChainLink>;

// The lists in a file: any number of PEM blocks, of which other kinds are skipped, or one list in DER. Empty: none.
// Throws std::runtime_error saying what cannot be read. May be called on any thread. All threads that are given the same
// bytes get the same lists: whoever comes first reads them, which takes 50 ms for 100 000 certificates.
std::shared_ptr<const CrlSet> SharedCrls(const uint8_t* bytes, size_t n);

class Revocations {
 public:
  // Until it is enabled nothing is remembered of peers.
  bool enabled() const { return generation_ > 0; }
  void Set(std::shared_ptr<const CrlSet> lists);
  // `chain`: leaf first, root last, as verified.
  PeerChain Describe(STACK_OF(X509)* chain);
  bool Revoked(const PeerChain& chain) const;
  // A chain that was not verified here: PEM, leaf first, each signed by the next or by one of the roots. Its issuers are
  // kept, as one is rarely alone.
  bool Revoked(const std::string& chain_pem, const std::string& roots_pem);

 private:
  std::shared_ptr<Issuer> Intern(X509* certificate);
  std::shared_ptr<const CrlSet> lists_ = std::make_shared<CrlSet>();
  uint64_t generation_ = 0;
  std::vector<std::shared_ptr<Issuer>> kept_;
  std::map<std::string, std::weak_ptr<Issuer>> issuers_;  // by their digest
};

}  // namespace culvert
