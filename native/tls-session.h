// TLS of one connection. OpenSSL makes the handshake and verifies the peer; afterwards the records are protected by
// RecordProtection and the OpenSSL object is freed, so an idle tunnel keeps two keys and no buffers. Connections in TLS
// 1.2, where that is permitted, keep the OpenSSL object and go through it.
#pragma once

#include <memory>
#include <openssl/ssl.h>
#include <string>
#include <vector>

#include "out-queue.h"
#include "revocations.h"
#include "tls-context.h"
#include "tls-records.h"

namespace culvert {

struct PeerExpectation {
  std::vector<std::string> identities;  // client role: the server must present one of these
  std::string trust_domain;             // server role: the client must be of this trust domain
  Revocations* revocations = nullptr;   // outlives the session
  bool log_secrets = true;              // if the context has a key log
};

struct PeerInfo {
  std::string identity;  // the URI SAN that was accepted
  std::string group;     // negotiated key exchange
  std::string suite;
};

enum class TlsProgress { kMore, kHandshakeDone, kClosed, kFailed };

class TlsSession {
 public:
  TlsSession(std::shared_ptr<TlsContext> context, bool server, PeerExpectation expectation);
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // Client role: writes the ClientHello.
  bool Begin(OutQueue* out, ChunkPool* pool);
  // Consumes complete records of `in`, writes opened bytes to `plain` (room for `n` bytes). Stops after the handshake is
  // done, so that this is told before the first data.
  TlsProgress Receive(const uint8_t* in, size_t n, size_t* consumed, uint8_t* plain, size_t* produced, OutQueue* out, ChunkPool* pool);
  bool Seal(const uint8_t* plain, size_t n, OutQueue* out, ChunkPool* pool);
  // The last record of this direction: close_notify, or what is wrong. Does nothing after the first one (RFC 8446 §6.1).
  void SealAlert(uint8_t level, uint8_t description, OutQueue* out, ChunkPool* pool);
  bool established() const { return established_; }
  const std::string& error() const { return error_; }
  // Of the verified chain, when revocations were to be looked at.
  const PeerChain& peer_chain() const { return peer_chain_; }
  bool peer_revoked() const { return peer_revoked_; }
  const PeerInfo& peer() const { return peer_; }

  // Callbacks of the context.
  bool VerifyPeer(bool chain_ok, X509_STORE_CTX* store);
  void OnKeyLogLine(const char* line);

 private:
  TlsProgress BadHeader(const uint8_t* header, size_t body, OutQueue* out, ChunkPool* pool);
  TlsProgress Handshake(const uint8_t* record, size_t n, OutQueue* out, ChunkPool* pool);
  bool Establish();
  TlsProgress OpenRecord(const uint8_t* record, size_t n, uint8_t* plain, size_t* length, OutQueue* out, ChunkPool* pool);
  TlsProgress ReadThroughOpenSsl(const uint8_t* record, size_t n, uint8_t* plain, size_t* length, OutQueue* out, ChunkPool* pool);
  bool WriteThroughOpenSsl(const uint8_t* plain, size_t n, OutQueue* out, ChunkPool* pool);
  TlsProgress HandshakeMessages(const uint8_t* bytes, size_t n, OutQueue* out, ChunkPool* pool);
  TlsProgress Fail(uint8_t alert, std::string text, OutQueue* out, ChunkPool* pool);
  void FlushOpenSsl(OutQueue* out, ChunkPool* pool);

  std::shared_ptr<TlsContext> context_;
  PeerExpectation expectation_;
  PeerInfo peer_;
  PeerChain peer_chain_;
  std::string error_;
  std::string verify_error_;
  std::string partial_message_;  // a post-handshake message split over records
  SSL* ssl_ = nullptr;  // null once the connection is established, but for TLS 1.2
  RecordProtection sealer_;
  RecordProtection opener_;
  TrafficSecret client_secret_{};
  TrafficSecret server_secret_{};
  bool server_;
  bool established_ = false;
  bool peer_revoked_ = false;
  bool ended_ = false;
  // The peer asked for new keys. They come before the next data, once however often it asks (RFC 8446 §4.6.3): a peer
  // that asks and does not read cannot fill our queue.
  bool update_due_ = false;
};

}  // namespace culvert
