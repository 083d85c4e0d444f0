// Reading, writing and closing of channels. Hot path: see bench/ (relay and pods).
#include <cerrno>
#include <cstring>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utility>

#include "loop.h"

namespace culvert {
namespace {

constexpr uint32_t kIndexBits = 20;
constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;
// Ids stay below 2^30 so that they are small integers in V8.
constexpr uint32_t kGenerationMask = (1u << 10) - 1;
// Plaintext from here on is sealed from where it lies; smaller writes of a turn share a record.
constexpr size_t kSealDirectly = 4096;
// A queue of this size is offered to the kernel at once instead of at the end of the turn.
constexpr size_t kSendEarly = 256 * 1024;
constexpr size_t kMaxSlices = 64;
// A freed index rests until so many are free: with the generations an id comes back after a million connections.
constexpr size_t kRestingIndexes = 1024;
constexpr char kNotSealed[] = "tls error: a record could not be sealed";

}  // namespace

Channel* Loop::NewChannel(int fd) {
  uint32_t index;
  if (free_.size() > kRestingIndexes || (table_.size() > kIndexMask && !free_.empty())) {
    index = free_.front();
    free_.pop_front();
  } else {
    if (table_.size() > kIndexMask) return nullptr;
    index = static_cast<uint32_t>(table_.size());
    table_.push_back(nullptr);
    generations_.push_back(0);
  }
  generations_[index] = (generations_[index] + 1) & kGenerationMask;
  if (generations_[index] == 0) generations_[index] = 1;  // 0 is no id
  auto* channel = new Channel();
  channel->loop = this;
  channel->id = generations_[index] << kIndexBits | index;
  channel->fd = fd;
  table_[index] = channel;
  live_++;
  return channel;
}

uint32_t Loop::Attach(int fd, bool connecting) {
  Channel* channel = NewChannel(fd);
  if (channel == nullptr) return 0;
  channel->connecting = connecting;
  channel->writable = !connecting;
  // What has arrived already is the first event: epoll looks at the socket when it is added.
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
  event.data.u64 = channel->id;
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) {
    uint32_t index = channel->id & kIndexMask;
    table_[index] = nullptr;
    free_.push_back(index);
    live_--;
    delete channel;
    return 0;
  }
  return channel->id;
}

Channel* Loop::Find(uint32_t id) {
  uint32_t index = id & kIndexMask;
  if (index >= table_.size()) return nullptr;
  Channel* channel = table_[index];
  return channel != nullptr && channel->id == id && !channel->closed ? channel : nullptr;
}

void Loop::Dispatch(Channel* channel, uint32_t events) {
  constexpr uint32_t kEnd = EPOLLRDHUP | EPOLLERR | EPOLLHUP;
  bool news = (events & (EPOLLIN | EPOLLPRI | kEnd)) != 0;
  if (news) channel->readable = true;
  if ((events & (EPOLLPRI | kEnd)) != 0) channel->read_to_end = true;
  if ((events & EPOLLERR) != 0) channel->broken = true;
  if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
    if (channel->connecting) ConnectDone(channel);
    else if (!channel->writable) Writable(channel);
  }
  if (news && !channel->closed && !channel->failed && !channel->connecting) Read(channel);
}

void Loop::Read(Channel* channel) {
  if (channel->closing) {
    Discard(channel);
  } else if (channel->read_limit > 0) {
    if (channel->tls) ReadTls(channel);
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

void Loop::ConnectDone(Channel* channel) {
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  channel->connecting = false;
  if (error != 0) {
    Fail(channel, error, "");
    return;
  }
  channel->writable = true;
  MarkDirty(channel);  // what was written, or shut down, in the meantime
  CallEvent(channel, kEventConnected, 0);
}

void Loop::Writable(Channel* channel) {
  channel->writable = true;
  Flush(channel);
  if (channel->closed || channel->failed || channel->closing || !channel->tell_drained) return;
  if (channel->out.empty()) channel->tell_drained = false;
  CallEvent(channel, kEventDrained, static_cast<double>(channel->out.size()));
}

void Loop::CheckError(Channel* channel) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (channel->memory) error = ECONNRESET;
  else getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  channel->broken = false;
  if (error != 0) Fail(channel, error, "");
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

// TypeScript is told at the end of the turn, so that this may happen inside any of its calls.
void Loop::Fail(Channel* channel, int code, std::string text) {
  if (channel->failed || channel->closed) return;
  if (channel->closing) {
    // Nobody waits for the rest any more.
    Finish(channel);
    return;
  }
  channel->failed = true;
  channel->readable = false;
  channel->read_limit = 0;
  channel->first_slice = channel->last_slice = -1;
  channel->error = code;
  channel->error_text = std::move(text);
  // The alert tells the peer why; best effort.
  bool has_alert = code == kTlsError || code == kRevokedError;
  if (has_alert && !channel->memory) channel->out.Send(channel->fd, &pool_);
  if (!has_alert || !channel->memory) channel->out.Clear(&pool_);
  channel->tell_failed = true;
  MarkDirty(channel);
}

int64_t Loop::Write(Channel* channel, const uint8_t* bytes, size_t n) { return Queue(channel, bytes, n, true); }

int64_t Loop::WriteFrame(Channel* channel, uint32_t stream, uint8_t flags, size_t offset, size_t n) {
  // The header goes in front of the payload where it lies. A slice of this turn may end there: it is taken first.
  uint8_t* header = memory_ + offset - kFrameHeader;
  if (!sliced_.empty() && header >= memory_ + kScratch) {
    for (size_t i = 0; i < sliced_.size(); i++) {
      Channel* other = Find(sliced_[i]);
      if (other != nullptr) SendSlices(other);
    }
  }
  header[0] = static_cast<uint8_t>(n >> 16);
  header[1] = static_cast<uint8_t>(n >> 8);
  header[2] = static_cast<uint8_t>(n);
  header[3] = 0;  // DATA
  header[4] = flags;
  header[5] = static_cast<uint8_t>(stream >> 24);
  header[6] = static_cast<uint8_t>(stream >> 16);
  header[7] = static_cast<uint8_t>(stream >> 8);
  header[8] = static_cast<uint8_t>(stream);
  return Queue(channel, header, kFrameHeader + n, false);
}

// `stays`: nobody writes to the bytes before the callback returns.
int64_t Loop::Queue(Channel* channel, const uint8_t* bytes, size_t n, bool stays) {
  if (channel->failed || channel->closing || channel->shut || channel->shut_when_flushed) return -1;
  if (channel->tls) {
    if (!channel->tls->established()) return -1;
    bool sealed = true;
    if (n >= kSealDirectly) {
      sealed = SealPlain(channel) && channel->tls->Seal(bytes, n, &channel->out, &pool_);
    } else {
      if (channel->plain != nullptr && channel->plain->end + n > kMaxPlaintext) sealed = SealPlain(channel);
      if (channel->plain == nullptr) channel->plain = pool_.Get(ChunkPool::kLarge);
      std::memcpy(channel->plain->data() + channel->plain->end, bytes, n);
      channel->plain->end += static_cast<uint32_t>(n);
    }
    if (!sealed) Fail(channel, kTlsError, kNotSealed);
    else if (channel->out.size() >= kSendEarly && channel->writable) Flush(channel);
    else MarkDirty(channel);
  } else if (channel->memory) {
    return -1;  // carries TLS only
  } else if (stays && in_data_call_ && channel->out.empty() && channel->writable && bytes >= read_at_) {
    // Sent from the slab when the callback returns, with whatever else goes to this channel.
    if (channel->first_slice < 0) sliced_.push_back(channel->id);
    slices_.push_back({bytes, static_cast<uint32_t>(n), -1});
    int32_t index = static_cast<int32_t>(slices_.size()) - 1;
    if (channel->first_slice < 0) channel->first_slice = index;
    else slices_[static_cast<size_t>(channel->last_slice)].next = index;
    channel->last_slice = index;
  } else if (SendSlices(channel)) {
    // Copied: the scratch area is written anew at once, the slab with the next read.
    channel->out.Append(&pool_, bytes, n);
    MarkDirty(channel);
  }
  return channel->failed ? -1 : static_cast<int64_t>(channel->out.size());
}

bool Loop::SealPlain(Channel* channel) {
  if (channel->plain == nullptr) return true;
  bool ok = channel->tls->Seal(channel->plain->data(), channel->plain->end, &channel->out, &pool_);
  pool_.Put(channel->plain);
  channel->plain = nullptr;
  return ok;
}

void Loop::MarkDirty(Channel* channel) {
  if (channel->dirty) return;
  channel->dirty = true;
  dirty_.push_back(channel->id);
}

void Loop::MarkReady(Channel* channel) {
  if (channel->ready) return;
  channel->ready = true;
  ready_.push_back(channel->id);
}

bool Loop::SendSlices(Channel* channel) {
  if (channel->first_slice < 0) return true;
  iovec parts[kMaxSlices];
  int32_t next = channel->first_slice;
  channel->first_slice = channel->last_slice = -1;
  while (next >= 0) {
    size_t count = 0;
    size_t total = 0;
    for (; next >= 0 && count < kMaxSlices; next = slices_[static_cast<size_t>(next)].next) {
      const Slice& slice = slices_[static_cast<size_t>(next)];
      parts[count].iov_base = const_cast<uint8_t*>(slice.bytes);
      parts[count].iov_len = slice.length;
      total += slice.length;
      count++;
    }
    ssize_t sent = 0;
    if (channel->out.empty() && channel->writable) {
      sent = SendParts(channel->fd, parts, count);
      if (sent < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
          Fail(channel, errno, "");
          return false;
        }
        sent = 0;
      }
    }
    if (static_cast<size_t>(sent) == total) continue;
    channel->writable = false;
    size_t skip = static_cast<size_t>(sent);
    for (size_t i = 0; i < count; i++) {
      size_t done = skip < parts[i].iov_len ? skip : parts[i].iov_len;
      skip -= done;
      channel->out.Append(&pool_, static_cast<const uint8_t*>(parts[i].iov_base) + done, parts[i].iov_len - done);
    }
  }
  return true;
}

void Loop::FlushSliced() {
  for (size_t i = 0; i < sliced_.size(); i++) {
    Channel* channel = Find(sliced_[i]);
    if (channel != nullptr) Flush(channel);
  }
  sliced_.clear();
  slices_.clear();
}

void Loop::Flush(Channel* channel) {
  if (channel->failed || channel->closed) return;
  if (!SendSlices(channel)) return;
  if (channel->connecting) return;
  if (!SealPlain(channel)) {
    Fail(channel, kTlsError, kNotSealed);
    return;
  }
  if (!channel->out.empty() && channel->writable && !channel->memory) {
    int error = channel->out.Send(channel->fd, &pool_);
    if (error != 0) {
      Fail(channel, error, "");
      return;
    }
    if (!channel->out.empty()) channel->writable = false;
  }
  if (!channel->out.empty()) return;
  if (channel->shut_when_flushed && !channel->shut) {
    channel->shut = true;
    if (channel->memory) channel->memory->tell_shut = true;
    else shutdown(channel->fd, SHUT_WR);
  }
  if (!channel->closing) return;
  if (!Lingers(channel)) {
    Finish(channel);
  } else if (!channel->shut) {
    channel->shut = true;
    shutdown(channel->fd, SHUT_WR);
  }
}

size_t Loop::FlushNow(Channel* channel) {
  Flush(channel);
  if (channel->closed || channel->failed) return 0;
  if (!channel->out.empty()) channel->tell_drained = true;
  return channel->out.size();
}

void Loop::FlushDirty() {
  // What is told here may make further channels dirty: the list may grow while it is walked.
  for (size_t i = 0; i < dirty_.size(); i++) {
    Channel* channel = Find(dirty_[i]);
    if (channel == nullptr) continue;
    channel->dirty = false;
    Flush(channel);
    if (channel->memory) TellCarrier(channel);
    if (channel->closed) continue;
    if (channel->tell_failed) {
      channel->tell_failed = false;
      CallEvent(channel, kEventError, channel->error);
    } else if (channel->tell_drained && channel->out.empty() && !channel->closed && !channel->closing) {
      channel->tell_drained = false;
      CallEvent(channel, kEventDrained, 0);
    }
  }
  dirty_.clear();
}

void Loop::Resume(Channel* channel, uint32_t limit) {
  if (channel->read_ended || channel->failed || channel->closing) return;
  channel->read_limit = limit;
  if (limit > 0 && channel->readable && !channel->connecting) MarkReady(channel);
}

void Loop::Shutdown(Channel* channel) {
  if (channel->failed || channel->closing || channel->shut_when_flushed) return;
  if (channel->tls && channel->tls->established()) {
    if (SealPlain(channel)) channel->tls->SealAlert(1, 0, &channel->out, &pool_);  // close_notify
  }
  channel->shut_when_flushed = true;
  MarkDirty(channel);
}

// The peer of a tunnel may speak at any time (windows, keep-alive). The kernel answers that with a reset once the socket is
// closed, and drops what it has not sent yet: a tunnel waits for the end of its peer.
bool Loop::Lingers(const Channel* channel) {
  return channel->tls && channel->tls->established() && !channel->memory && !channel->read_ended;
}

bool Loop::Close(Channel* channel) {
  if (channel->closing) return false;
  channel->read_limit = 0;
  if (channel->failed || channel->connecting) {
    Finish(channel);
    return true;
  }
  if (channel->tls && channel->tls->established() && !channel->shut_when_flushed && SealPlain(channel)) {
    channel->tls->SealAlert(1, 0, &channel->out, &pool_);
  }
  if (!in_data_call_ || channel->first_slice < 0) Flush(channel);
  bool empty = channel->out.empty() && channel->first_slice < 0 && channel->plain == nullptr;
  if (channel->failed || (empty && !Lingers(channel))) {
    Finish(channel);
    return true;
  }
  channel->closing = true;
  channel->partial_record.reset();
  MarkDirty(channel);
  if (channel->readable) MarkReady(channel);
  return false;
}

void Loop::Reset(Channel* channel) {
  linger abort{1, 0};
  if (channel->memory) channel->memory->reset = true;
  else setsockopt(channel->fd, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  channel->closing = false;  // and nothing is told
  Finish(channel);
}

void Loop::Finish(Channel* channel) {
  if (channel->closed) return;
  channel->closed = true;
  channel->tell_closed = channel->closing;
  channel->first_slice = channel->last_slice = -1;
  channel->out.Clear(&pool_);
  if (channel->memory) channel->memory->in.Clear(&pool_);
  if (channel->plain != nullptr) {
    pool_.Put(channel->plain);
    channel->plain = nullptr;
  }
  if (channel->fd >= 0) close(channel->fd);  // leaves the epoll set with it
  channel->fd = -1;
  dead_.push_back(channel);
  live_--;
}

int Loop::Detach(Channel* channel) {
  int fd = channel->fd;
  if (epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr) != 0) return -1;
  // Finish closes what is left of it: nothing.
  channel->fd = -1;
  Finish(channel);
  return fd;
}

void Loop::FreeClosed() {
  // What is told here may close further channels: the list may grow while it is walked.
  for (size_t i = 0; i < dead_.size(); i++) {
    Channel* channel = dead_[i];
    if (channel->tell_closed && !stopping_) CallEvent(channel, kEventClosed, 0);
    if (channel->memory && !stopping_) CallEvent(channel, kEventGone, channel->memory->reset ? 1 : 0);
    uint32_t index = channel->id & kIndexMask;
    table_[index] = nullptr;
    free_.push_back(index);
    delete channel;
  }
  dead_.clear();
}

void Loop::CutRevoked() {
  constexpr uint8_t kFatal = 2;
  constexpr uint8_t kCertificateRevoked = 44;
  for (size_t i = 0; i < table_.size(); i++) {
    Channel* channel = table_[i];
    if (channel == nullptr || channel->closed || channel->failed || !channel->tls) continue;
    if (!revocations.Revoked(channel->tls->peer_chain())) continue;
    channel->tls->SealAlert(kFatal, kCertificateRevoked, &channel->out, &pool_);
    Fail(channel, kRevokedError, "connection closed: peer certificate revoked by CRL");
  }
}

bool Loop::StartTls(Channel* channel, std::shared_ptr<TlsContext> context, bool server, PeerExpectation expectation, std::string* error) {
  if (channel->tls || channel->failed || channel->closing || channel->shut_when_flushed || !SendSlices(channel)) {
    *error = "TLS cannot start on this connection any more";
    return false;
  }
  try {
    expectation.revocations = &revocations;
    channel->tls = std::make_unique<TlsSession>(std::move(context), server, std::move(expectation));
  } catch (const std::exception& failure) {
    *error = failure.what();
    return false;
  }
  if (!channel->tls->Begin(&channel->out, &pool_)) {
    *error = channel->tls->error();
    return false;
  }
  MarkDirty(channel);
  return true;
}

}  // namespace culvert
