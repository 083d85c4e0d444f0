// TLS 1.3 record protection (RFC 8446 §5): one direction of an established connection. The handshake is OpenSSL's; once
// it is done, only a traffic secret and a sequence number remain, which are plain data and can be handed to another
// process. Records are sealed from and opened to where the bytes are, without a copy in between.
#pragma once

#include <cstddef>
#include <cstdint>
#include <openssl/evp.h>

namespace culvert {

constexpr size_t kRecordHeader = 5;
constexpr size_t kRecordTag = 16;
constexpr size_t kMaxPlaintext = 1 << 14;             // RFC 8446 §5.1
constexpr size_t kMaxCiphertext = kMaxPlaintext + 256;  // RFC 8446 §5.2
constexpr uint8_t kContentAlert = 21;
constexpr uint8_t kContentHandshake = 22;
constexpr uint8_t kContentApplication = 23;

struct TrafficSecret {
  uint8_t bytes[EVP_MAX_MD_SIZE];
  size_t length;
};

enum class OpenResult { kOpened, kNotAuthentic, kOversized, kNoContent };

class RecordProtection {
 public:
  RecordProtection() = default;
  RecordProtection(const RecordProtection&) = delete;
  RecordProtection& operator=(const RecordProtection&) = delete;
  ~RecordProtection();

  // Takes the suite (0x1301 or 0x1302) and the secret; derives key and IV, sequence number 0.
  bool Start(uint16_t suite, const TrafficSecret& secret, bool sealing);
  // Replaces the secret by the next generation (RFC 8446 §7.2).
  bool Update();
  // Writes one record (header included) of `n` ≤ kMaxPlaintext bytes to `out`; returns its size, 0 on failure.
  size_t Seal(uint8_t type, const uint8_t* plain, size_t n, uint8_t* out);
  static size_t SealedSize(size_t n) { return kRecordHeader + n + 1 + kRecordTag; }
  // Opens the body (without header) of one record to `out` (≥ n - kRecordTag bytes).
  OpenResult Open(const uint8_t* header, const uint8_t* body, size_t n, uint8_t* out, uint8_t* type, size_t* length);
  uint64_t sequence() const { return sequence_; }

 private:
  bool Derive();
  void Nonce(uint8_t* nonce) const;
  EVP_CIPHER_CTX* cipher_ = nullptr;
  TrafficSecret secret_{};
  uint8_t iv_[12]{};
  uint64_t sequence_ = 0;
  uint16_t suite_ = 0;
  bool sealing_ = false;
};

}  // namespace culvert
