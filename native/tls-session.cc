#include "tls-session.h"

#include <cstring>
#include <openssl/err.h>
#include <stdexcept>
#include <unistd.h>
#include <utility>

namespace culvert {
namespace {

constexpr char kHandshakeError[] = "tls handshake error: ";
constexpr uint8_t kAlertFatal = 2;
constexpr uint8_t kCloseNotify = 0;
constexpr uint8_t kUnexpectedMessage = 10;
constexpr uint8_t kBadRecordMac = 20;
constexpr uint8_t kRecordOverflow = 22;
constexpr uint8_t kIllegalParameter = 47;
constexpr uint8_t kDecodeError = 50;
constexpr uint8_t kInternalError = 80;
constexpr uint8_t kUserCanceled = 90;
constexpr uint8_t kNewSessionTicket = 4;
constexpr uint8_t kKeyUpdate = 24;
// A peer may send tickets; nothing after the handshake is larger.
constexpr size_t kMaxPostHandshakeMessage = 64 * 1024;
// AES-GCM keys are changed well before 2^24.5 full records (RFC 8446 §5.5).
constexpr uint64_t kRecordsPerKey = uint64_t{1} << 23;

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void SecretFromHex(const char* hex, TrafficSecret* secret) {
  secret->length = 0;
  while (secret->length < sizeof(secret->bytes)) {
    int high = HexDigit(hex[0]);
    if (high < 0) break;
    int low = HexDigit(hex[1]);
    if (low < 0) break;
    secret->bytes[secret->length++] = static_cast<uint8_t>(high << 4 | low);
    hex += 2;
  }
}

}  // namespace

TlsSession::TlsSession(std::shared_ptr<TlsContext> context, bool server, PeerExpectation expectation)
    : context_(std::move(context)), expectation_(std::move(expectation)), server_(server) {
  ssl_ = SSL_new(context_->get());
  if (ssl_ == nullptr) throw std::runtime_error("cannot create a TLS connection");
  SSL_set_ex_data(ssl_, SessionIndex(), this);
  SSL_set_bio(ssl_, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  if (server_) SSL_set_accept_state(ssl_);
  else SSL_set_connect_state(ssl_);
}

TlsSession::~TlsSession() {
  SSL_free(ssl_);
  OPENSSL_cleanse(&client_secret_, sizeof(client_secret_));
  OPENSSL_cleanse(&server_secret_, sizeof(server_secret_));
}

bool TlsSession::Begin(OutQueue* out, ChunkPool* pool) {
  if (server_) return true;
  return Handshake(nullptr, 0, out, pool) != TlsProgress::kFailed;
}

TlsProgress TlsSession::Receive(const uint8_t* in, size_t n, size_t* consumed, uint8_t* plain, size_t* produced, OutQueue* out,
                                ChunkPool* pool) {
  *consumed = 0;
  *produced = 0;
  while (n - *consumed >= kRecordHeader) {
    const uint8_t* record = in + *consumed;
    size_t body = static_cast<size_t>(record[3]) << 8 | record[4];
    if (record[0] < 20 || record[0] > 23 || record[1] != 3 || body > kMaxCiphertext) return BadHeader(record, body, out, pool);
    if (n - *consumed < kRecordHeader + body) break;
    *consumed += kRecordHeader + body;
    TlsProgress progress;
    if (established()) {
      size_t length = 0;
      progress = ssl_ != nullptr
                     ? ReadThroughOpenSsl(record, kRecordHeader + body, plain + *produced, &length, out, pool)
                     : OpenRecord(record, kRecordHeader + body, plain + *produced, &length, out, pool);
      *produced += length;
    } else {
      progress = Handshake(record, kRecordHeader + body, out, pool);
    }
    if (progress != TlsProgress::kMore) return progress;
  }
  return TlsProgress::kMore;
}

TlsProgress TlsSession::BadHeader(const uint8_t* header, size_t body, OutQueue* out, ChunkPool* pool) {
  if (established()) {
    return body > kMaxCiphertext ? Fail(kRecordOverflow, "tls error: oversized record", out, pool)
                                 : Fail(kUnexpectedMessage, "tls error: malformed record", out, pool);
  }
  // OpenSSL recognizes what people send by mistake, and has the alert for it.
  std::string what;
  if (Handshake(header, kRecordHeader, out, pool) == TlsProgress::kFailed) what = " (" + error_.substr(sizeof(kHandshakeError) - 1) + ")";
  else SealAlert(kAlertFatal, kUnexpectedMessage, out, pool);
  error_ = kHandshakeError + std::string("the peer does not speak TLS") + what;
  return TlsProgress::kFailed;
}

TlsProgress TlsSession::Handshake(const uint8_t* record, size_t n, OutQueue* out, ChunkPool* pool) {
  ERR_clear_error();
  if (n > 0) BIO_write(SSL_get_rbio(ssl_), record, static_cast<int>(n));
  int result = SSL_do_handshake(ssl_);
  FlushOpenSsl(out, pool);
  if (result == 1) {
    if (!Establish()) return Fail(kInternalError, "tls handshake error: the traffic keys could not be derived", out, pool);
    return TlsProgress::kHandshakeDone;
  }
  if (SSL_get_error(ssl_, result) == SSL_ERROR_WANT_READ) return TlsProgress::kMore;
  unsigned long code = ERR_get_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  error_ = kHandshakeError;
  if (!verify_error_.empty()) error_ += verify_error_;
  else error_ += reason != nullptr ? reason : "unknown failure";
  ERR_clear_error();
  return TlsProgress::kFailed;
}

void TlsSession::FlushOpenSsl(OutQueue* out, ChunkPool* pool) {
  BIO* bio = SSL_get_wbio(ssl_);
  char* bytes = nullptr;
  long n = BIO_get_mem_data(bio, &bytes);
  if (n > 0) out->Append(pool, reinterpret_cast<const uint8_t*>(bytes), static_cast<size_t>(n));
  (void)BIO_reset(bio);
}

bool TlsSession::Establish() {
  established_ = true;
  const SSL_CIPHER* cipher = SSL_get_current_cipher(ssl_);
  uint16_t suite = SSL_CIPHER_get_protocol_id(cipher);
  peer_.suite = SSL_CIPHER_standard_name(cipher);
  const char* group = SSL_group_to_name(ssl_, static_cast<int>(SSL_get_negotiated_group(ssl_)));
  if (group != nullptr) peer_.group = group;
  expectation_ = PeerExpectation();
  if (SSL_version(ssl_) == TLS1_2_VERSION) {
    context_.reset();
    return true;
  }
  bool ok = client_secret_.length > 0 && server_secret_.length > 0 &&
            sealer_.Start(suite, server_ ? server_secret_ : client_secret_, true) &&
            opener_.Start(suite, server_ ? client_secret_ : server_secret_, false);
  OPENSSL_cleanse(&client_secret_, sizeof(client_secret_));
  OPENSSL_cleanse(&server_secret_, sizeof(server_secret_));
  if (ok) {
    SSL_set_quiet_shutdown(ssl_, 1);
    SSL_free(ssl_);
    ssl_ = nullptr;
    context_.reset();  // tunnels live long: they do not keep every certificate there ever was
  }
  return ok;
}

TlsProgress TlsSession::OpenRecord(const uint8_t* record, size_t n, uint8_t* plain, size_t* length, OutQueue* out, ChunkPool* pool) {
  *length = 0;
  if (record[0] != kContentApplication) return Fail(kUnexpectedMessage, "tls error: unprotected record on a protected connection", out, pool);
  uint8_t type = 0;
  size_t opened = 0;
  switch (opener_.Open(record, record + kRecordHeader, n - kRecordHeader, plain, &type, &opened)) {
    case OpenResult::kOpened:
      break;
    case OpenResult::kNotAuthentic:
      return Fail(kBadRecordMac, "tls error: a record is not authentic", out, pool);
    case OpenResult::kOversized:
      return Fail(kRecordOverflow, "tls error: oversized record", out, pool);
    case OpenResult::kNoContent:
      return Fail(kUnexpectedMessage, "tls error: a record of padding only", out, pool);
  }
  switch (type) {
    case kContentApplication:
      if (!partial_message_.empty()) return Fail(kUnexpectedMessage, "tls error: data inside a handshake message", out, pool);
      *length = opened;
      return TlsProgress::kMore;
    case kContentHandshake:
      return HandshakeMessages(plain, opened, out, pool);
    case kContentAlert:
      if (opened != 2) return Fail(kDecodeError, "tls error: malformed alert", out, pool);
      if (plain[1] == kCloseNotify) return TlsProgress::kClosed;
      if (plain[1] == kUserCanceled) return TlsProgress::kMore;  // a close_notify follows, RFC 8446 §6.1
      error_ = std::string("tls error: the peer sent alert ") + SSL_alert_desc_string_long(plain[1]);
      return TlsProgress::kFailed;
    default:
      return Fail(kUnexpectedMessage, "tls error: unexpected record type", out, pool);
  }
}

// RFC 8446 §4.6: what may come after the handshake. Tickets are of no use here; a key update must be followed.
TlsProgress TlsSession::HandshakeMessages(const uint8_t* bytes, size_t n, OutQueue* out, ChunkPool* pool) {
  if (n == 0) return Fail(kUnexpectedMessage, "tls error: empty handshake record", out, pool);
  partial_message_.append(reinterpret_cast<const char*>(bytes), n);
  size_t at = 0;
  while (partial_message_.size() - at >= 4) {
    const auto* message = reinterpret_cast<const uint8_t*>(partial_message_.data()) + at;
    size_t left = partial_message_.size() - at;
    size_t body = static_cast<size_t>(message[1]) << 16 | static_cast<size_t>(message[2]) << 8 | message[3];
    if (body > kMaxPostHandshakeMessage) return Fail(kDecodeError, "tls error: oversized handshake message", out, pool);
    if (left < 4 + body) break;
    if (message[0] == kKeyUpdate) {
      if (body != 1) return Fail(kDecodeError, "tls error: malformed key update", out, pool);
      if (message[4] > 1) return Fail(kIllegalParameter, "tls error: malformed key update", out, pool);
      // It must end its record: what follows is under the next key (RFC 8446 §5.1).
      if (left != 5) return Fail(kUnexpectedMessage, "tls error: data after a key update", out, pool);
      if (message[4] == 1) update_due_ = true;
      if (!opener_.Update()) return Fail(kInternalError, "tls error: key update failed", out, pool);
    } else if (message[0] != kNewSessionTicket || server_) {
      return Fail(kUnexpectedMessage, "tls error: unexpected handshake message", out, pool);
    }
    at += 4 + body;
  }
  // Once for all of them: a record can hold thousands.
  partial_message_.erase(0, at);
  if (partial_message_.empty()) partial_message_.shrink_to_fit();
  return TlsProgress::kMore;
}

// Takes one record, which brings at most as many bytes as it has.
TlsProgress TlsSession::ReadThroughOpenSsl(const uint8_t* record, size_t n, uint8_t* plain, size_t* length, OutQueue* out, ChunkPool* pool) {
  *length = 0;
  // Nothing of a handshake follows one in TLS 1.2 but a renegotiation, which HTTP/2 forbids (RFC 9113 §9.2.1).
  if (record[0] == kContentHandshake) return Fail(kUnexpectedMessage, "tls error: the peer asks for a renegotiation", out, pool);
  ERR_clear_error();
  BIO_write(SSL_get_rbio(ssl_), record, static_cast<int>(n));
  while (true) {
    int got = SSL_read(ssl_, plain + *length, static_cast<int>(n - *length));
    if (got > 0) {
      *length += static_cast<size_t>(got);
      continue;
    }
    int error = SSL_get_error(ssl_, got);
    if (error == SSL_ERROR_WANT_READ) return TlsProgress::kMore;
    if (error == SSL_ERROR_ZERO_RETURN) return TlsProgress::kClosed;
    unsigned long code = ERR_peek_last_error();  // the first may be of the cipher
    const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
    ERR_clear_error();
    error_ = std::string("tls error: ") + (reason != nullptr ? reason : "unknown failure");
    ended_ = true;
    FlushOpenSsl(out, pool);  // the alert
    return TlsProgress::kFailed;
  }
}

bool TlsSession::WriteThroughOpenSsl(const uint8_t* plain, size_t n, OutQueue* out, ChunkPool* pool) {
  ERR_clear_error();
  while (n > 0) {
    size_t part = n < kMaxPlaintext ? n : kMaxPlaintext;
    // Into memory: all of it or an error.
    if (SSL_write(ssl_, plain, static_cast<int>(part)) != static_cast<int>(part)) {
      ERR_clear_error();
      return false;
    }
    FlushOpenSsl(out, pool);
    plain += part;
    n -= part;
  }
  return true;
}

bool TlsSession::Seal(const uint8_t* plain, size_t n, OutQueue* out, ChunkPool* pool) {
  if (ssl_ != nullptr) return WriteThroughOpenSsl(plain, n, out, pool);
  while (n > 0) {
    if (update_due_ || sealer_.sequence() >= kRecordsPerKey) {
      const uint8_t update[] = {kKeyUpdate, 0, 0, 1, 0};
      uint8_t* room = out->Reserve(pool, RecordProtection::SealedSize(sizeof(update)));
      out->Commit(sealer_.Seal(kContentHandshake, update, sizeof(update), room));
      if (!sealer_.Update()) return false;
      update_due_ = false;
    }
    size_t part = n < kMaxPlaintext ? n : kMaxPlaintext;
    uint8_t* room = out->Reserve(pool, RecordProtection::SealedSize(part));
    size_t sealed = sealer_.Seal(kContentApplication, plain, part, room);
    if (sealed == 0) return false;
    out->Commit(sealed);
    plain += part;
    n -= part;
  }
  return true;
}

void TlsSession::SealAlert(uint8_t level, uint8_t description, OutQueue* out, ChunkPool* pool) {
  if (ended_) return;
  ended_ = true;
  const uint8_t alert[] = {level, description};
  if (established() && ssl_ != nullptr) {
    // OpenSSL lets its users send no other alert than this one, which is protected as any.
    SSL_shutdown(ssl_);
    ERR_clear_error();
    FlushOpenSsl(out, pool);
  } else if (established()) {
    uint8_t* room = out->Reserve(pool, RecordProtection::SealedSize(sizeof(alert)));
    out->Commit(sealer_.Seal(kContentAlert, alert, sizeof(alert), room));
  } else {
    const uint8_t record[] = {kContentAlert, 3, 3, 0, 2, level, description};
    out->Append(pool, record, sizeof(record));
  }
}

TlsProgress TlsSession::Fail(uint8_t alert, std::string text, OutQueue* out, ChunkPool* pool) {
  error_ = std::move(text);
  SealAlert(kAlertFatal, alert, out, pool);
  return TlsProgress::kFailed;
}

// OpenSSL tells the traffic secrets only this way. A line is "<label> <client random> <secret>".
void TlsSession::OnKeyLogLine(const char* line) {
  constexpr char kClient[] = "CLIENT_TRAFFIC_SECRET_0 ";
  constexpr char kServer[] = "SERVER_TRAFFIC_SECRET_0 ";
  const char* secret = std::strrchr(line, ' ');
  if (secret != nullptr) {
    if (std::strncmp(line, kClient, sizeof(kClient) - 1) == 0) SecretFromHex(secret + 1, &client_secret_);
    if (std::strncmp(line, kServer, sizeof(kServer) - 1) == 0) SecretFromHex(secret + 1, &server_secret_);
  }
  if (expectation_.log_secrets && context_ != nullptr && context_->key_log_fd() >= 0) {
    std::string text = std::string(line) + "\n";
    ssize_t written = write(context_->key_log_fd(), text.data(), text.size());
    (void)written;  // a key log is best effort
    OPENSSL_cleanse(text.data(), text.size());
  }
}

}  // namespace culvert
