#include "tls-records.h"

#include <cstring>
#include <openssl/crypto.h>
#include <openssl/hmac.h>

namespace culvert {
namespace {

constexpr uint16_t kAes256GcmSha384 = 0x1302;

const EVP_MD* HashOf(uint16_t suite) { return suite == kAes256GcmSha384 ? EVP_sha384() : EVP_sha256(); }

// HKDF-Expand-Label of RFC 8446 §7.1 with an empty context. Every output here fits one hash block.
bool ExpandLabel(const EVP_MD* hash, const TrafficSecret& secret, const char* label, uint8_t* out, size_t length) {
  uint8_t info[64];
  size_t label_length = std::strlen(label);
  size_t n = 0;
  info[n++] = static_cast<uint8_t>(length >> 8);
  info[n++] = static_cast<uint8_t>(length);
  info[n++] = static_cast<uint8_t>(6 + label_length);
  std::memcpy(info + n, "tls13 ", 6);
  n += 6;
  std::memcpy(info + n, label, label_length);
  n += label_length;
  info[n++] = 0;  // empty context
  info[n++] = 1;  // block counter of HKDF-Expand
  uint8_t block[EVP_MAX_MD_SIZE];
  unsigned block_length = 0;
  bool ok = HMAC(hash, secret.bytes, static_cast<int>(secret.length), info, n, block, &block_length) != nullptr &&
            block_length >= length;
  if (ok) std::memcpy(out, block, length);
  OPENSSL_cleanse(block, sizeof(block));
  return ok;
}

}  // namespace

RecordProtection::~RecordProtection() {
  EVP_CIPHER_CTX_free(cipher_);
  OPENSSL_cleanse(&secret_, sizeof(secret_));
  OPENSSL_cleanse(iv_, sizeof(iv_));
}

bool RecordProtection::Start(uint16_t suite, const TrafficSecret& secret, bool sealing) {
  suite_ = suite;
  secret_ = secret;
  sealing_ = sealing;
  if (cipher_ == nullptr) cipher_ = EVP_CIPHER_CTX_new();
  return cipher_ != nullptr && Derive();
}

bool RecordProtection::Derive() {
  uint8_t key[32];
  size_t key_length = suite_ == kAes256GcmSha384 ? 32 : 16;
  const EVP_CIPHER* cipher = suite_ == kAes256GcmSha384 ? EVP_aes_256_gcm() : EVP_aes_128_gcm();
  const EVP_MD* hash = HashOf(suite_);
  bool ok = ExpandLabel(hash, secret_, "key", key, key_length) && ExpandLabel(hash, secret_, "iv", iv_, sizeof(iv_)) &&
            EVP_CipherInit_ex(cipher_, cipher, nullptr, key, nullptr, sealing_ ? 1 : 0) == 1;
  OPENSSL_cleanse(key, sizeof(key));
  sequence_ = 0;
  return ok;
}

bool RecordProtection::Update() {
  TrafficSecret next{};
  next.length = secret_.length;
  if (!ExpandLabel(HashOf(suite_), secret_, "traffic upd", next.bytes, next.length)) return false;
  secret_ = next;
  OPENSSL_cleanse(&next, sizeof(next));
  return Derive();
}

void RecordProtection::Nonce(uint8_t* nonce) const {
  std::memcpy(nonce, iv_, sizeof(iv_));
  for (int i = 0; i < 8; i++) nonce[11 - i] ^= static_cast<uint8_t>(sequence_ >> (8 * i));
}

size_t RecordProtection::Seal(uint8_t type, const uint8_t* plain, size_t n, uint8_t* out) {
  uint8_t nonce[12];
  Nonce(nonce);
  size_t body = n + 1 + kRecordTag;
  out[0] = kContentApplication;
  out[1] = 3;
  out[2] = 3;
  out[3] = static_cast<uint8_t>(body >> 8);
  out[4] = static_cast<uint8_t>(body);
  uint8_t* sealed = out + kRecordHeader;
  int part = 0;
  if (EVP_EncryptInit_ex(cipher_, nullptr, nullptr, nullptr, nonce) != 1) return 0;
  if (EVP_EncryptUpdate(cipher_, nullptr, &part, out, kRecordHeader) != 1) return 0;
  if (n > 0 && EVP_EncryptUpdate(cipher_, sealed, &part, plain, static_cast<int>(n)) != 1) return 0;
  if (EVP_EncryptUpdate(cipher_, sealed + n, &part, &type, 1) != 1) return 0;
  if (EVP_EncryptFinal_ex(cipher_, sealed + n + 1, &part) != 1) return 0;
  if (EVP_CIPHER_CTX_ctrl(cipher_, EVP_CTRL_AEAD_GET_TAG, kRecordTag, sealed + n + 1) != 1) return 0;
  sequence_++;
  return kRecordHeader + body;
}

OpenResult RecordProtection::Open(const uint8_t* header, const uint8_t* body, size_t n, uint8_t* out, uint8_t* type, size_t* length) {
  if (n < kRecordTag) return OpenResult::kNotAuthentic;
  uint8_t nonce[12];
  Nonce(nonce);
  size_t inner = n - kRecordTag;
  int part = 0;
  uint8_t tag[kRecordTag];
  std::memcpy(tag, body + inner, kRecordTag);
  if (EVP_DecryptInit_ex(cipher_, nullptr, nullptr, nullptr, nonce) != 1 ||
      EVP_CIPHER_CTX_ctrl(cipher_, EVP_CTRL_AEAD_SET_TAG, kRecordTag, tag) != 1 ||
      EVP_DecryptUpdate(cipher_, nullptr, &part, header, kRecordHeader) != 1 ||
      EVP_DecryptUpdate(cipher_, out, &part, body, static_cast<int>(inner)) != 1 ||
      EVP_DecryptFinal_ex(cipher_, out + inner, &part) != 1) {
    return OpenResult::kNotAuthentic;
  }
  sequence_++;
  // Padding counts, RFC 8446 §5.4.
  if (inner > kMaxPlaintext + 1) return OpenResult::kOversized;
  while (inner > 0 && out[inner - 1] == 0) inner--;
  if (inner == 0) return OpenResult::kNoContent;
  *type = out[inner - 1];
  *length = inner - 1;
  return OpenResult::kOpened;
}

}  // namespace culvert
