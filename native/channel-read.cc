// Reading from channels. Hot path: see bench/ (relay and pods).
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <utility>

#include "loop.h"

namespace culvert {
namespace {

// Reads of a tunnel in one turn, as long as each fills the slab. With as many as an application gets, what has once piled up
// in a tunnel between pods of this node stays there: 2.8 MB, which have left the caches before they are copied, and behind
// which the small requests of that tunnel wait (bench/: pods).
constexpr int kTunnelReads = 4;

}  // namespace

void Loop::Read(Channel* channel) {
  if (channel->closing) {
    Discard(channel);
  } else if (channel->read_limit > 0) {
    if (channel->tls) ReadTunnel(channel);
    else ReadPlain(channel);
  } else if (channel->broken) {
    // Not reading now: an end can wait until it is read, a reset cannot.
    CheckError(channel);
  }
  // The reset behind an end that was in the bytes themselves (close_notify).
  if (channel->memory && channel->memory->in_reset && channel->read_ended) Fail(channel, ECONNRESET, "");
  if (channel->closed || channel->failed || !channel->readable) return;
  if (channel->read_limit > 0 || channel->broken || channel->closing) MarkReady(channel);
}

// What still arrives while the queue of a closed channel is sent goes nowhere. It must be taken: two ends that wait for
// each other to read would wait for ever.
void Loop::Discard(Channel* channel) {
  if (channel->memory) {
    channel->memory->in.Clear(&pool_);
    channel->readable = false;
    if (channel->memory->in_reset) Finish(channel);  // nobody takes the queue any more
    return;
  }
  ssize_t n;
  do {
    n = recv(channel->fd, cipher_.get(), kSlab, MSG_TRUNC);
  } while (n < 0 && errno == EINTR);
  if (n <= 0 || (static_cast<size_t>(n) < kSlab && !channel->read_to_end)) channel->readable = false;
  if (n == 0) channel->read_ended = true;
  if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) Finish(channel);
  else if (n == 0 && channel->shut) Finish(channel);
}

// As recv(2).
ssize_t Loop::Receive(Channel* channel, uint8_t* to, size_t room) {
  if (channel->memory) return channel->memory->Receive(&pool_, to, room);
  ssize_t n;
  do {
    n = recv(channel->fd, to, room, 0);
  } while (n < 0 && errno == EINTR);
  return n;
}

void Loop::ReadPlain(Channel* channel) {
  // Twice at most: an end that came along with the last bytes is read right away.
  for (int reads = 0; reads < 2; reads++) {
    // Room for the frame header: whole reads then fill whole TLS records.
    size_t room = channel->read_limit < kSlab - kFrameHeader ? channel->read_limit : kSlab - kFrameHeader;
    if (!channel->unread.empty()) {
      CallData(channel, channel->unread.Take(&pool_, read_at_, room));
      return;
    }
    ssize_t n = Receive(channel, read_at_, room);
    if (n < 0) {
      channel->readable = false;
      if (errno != EAGAIN && errno != EWOULDBLOCK) Fail(channel, errno, "");
      return;
    }
    if (n == 0) {
      ReadEnd(channel);
      return;
    }
    // A short read has emptied the socket; the next bytes are a new edge.
    bool emptied = static_cast<size_t>(n) < room;
    if (emptied && !channel->read_to_end) channel->readable = false;
    CallData(channel, static_cast<size_t>(n));
    if (channel->closed || channel->failed || channel->closing || channel->read_limit == 0 || channel->tls) return;
    if (!emptied || !channel->read_to_end) return;
  }
}

void Loop::ReadTunnel(Channel* channel) {
  for (int reads = 0; reads < kTunnelReads; reads++) {
    ReadTls(channel);
    if (channel->closed || channel->failed || channel->closing || !channel->readable || channel->read_limit == 0) return;
  }
}

void Loop::ReadTls(Channel* channel) {
  // A partial record waits in the channel; it is completed in the slab of the thread.
  size_t held = 0;
  if (channel->partial_record) {
    held = channel->partial_record->size();
    std::memcpy(cipher_.get(), channel->partial_record->data(), held);
    channel->partial_record.reset();
  }
  if (channel->records_wait) {
    channel->records_wait = false;
    OpenRecords(channel, held);
    return;
  }
  ssize_t n = Receive(channel, cipher_.get() + held, kSlab - held);
  if (n > 0) {
    if (static_cast<size_t>(n) < kSlab - held && !channel->read_to_end) channel->readable = false;
    OpenRecords(channel, held + static_cast<size_t>(n));
    return;
  }
  int error = n < 0 ? errno : 0;
  HoldBack(channel, 0, held);
  if (n == 0) {
    // RFC 8446 §6.1: without close_notify the stream may have been cut by anybody.
    if (!channel->tls->established()) Fail(channel, kTlsError, "tls handshake error: the peer closed the connection during the handshake");
    else if (held > 0) Fail(channel, kTlsError, "tls error: the peer closed the connection inside a record");
    else ReadEnd(channel);
    return;
  }
  channel->readable = false;
  if (error != EAGAIN && error != EWOULDBLOCK) Fail(channel, error, "");
}

// Handles the records in the first `total` bytes of the ciphertext slab.
void Loop::OpenRecords(Channel* channel, size_t total) {
  size_t used = 0;
  while (true) {
    size_t consumed = 0;
    size_t produced = 0;
    TlsProgress progress = channel->tls->Receive(cipher_.get() + used, total - used, &consumed, read_at_, &produced, &channel->out, &pool_);
    used += consumed;
    if (!channel->out.empty()) MarkDirty(channel);
    if (produced > 0) {
      CallData(channel, produced);
      if (channel->closed || channel->failed || channel->closing) return;
    }
    if (progress == TlsProgress::kClosed) {
      ReadEnd(channel);
      return;
    }
    if (progress == TlsProgress::kFailed) {
      Fail(channel, channel->tls->peer_revoked() ? kRevokedError : kTlsError, channel->tls->error());
      return;
    }
    if (progress == TlsProgress::kMore) break;
    CallEvent(channel, kEventHandshake, 0);
    if (channel->closed || channel->failed || channel->closing) return;
    if (channel->read_limit > 0) continue;
    // Paused before the data that came with the end of the handshake: `resume` must find it.
    channel->records_wait = channel->readable = true;
    break;
  }
  HoldBack(channel, used, total);
}

void Loop::HoldBack(Channel* channel, size_t from, size_t to) {
  if (from < to) channel->partial_record = std::make_unique<std::vector<uint8_t>>(cipher_.get() + from, cipher_.get() + to);
}

void Loop::ReadEnd(Channel* channel) {
  channel->readable = false;
  channel->read_ended = true;
  channel->read_limit = 0;
  CallEvent(channel, kEventEnd, 0);
}

void Loop::Resume(Channel* channel, uint32_t limit) {
  if (channel->read_ended || channel->failed || channel->closing) return;
  channel->read_limit = limit;
  if (limit > 0 && channel->readable && !channel->connecting) MarkReady(channel);
}

}  // namespace culvert
