// The life of channels: attached, told what has happened, secured, closed.
#include <cerrno>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>

#include "loop.h"

namespace culvert {
namespace {

constexpr uint32_t kIndexBits = 20;
constexpr uint32_t kIndexMask = (1u << kIndexBits) - 1;
// Ids stay below 2^30 so that they are small integers in V8.
constexpr uint32_t kGenerationMask = (1u << 10) - 1;
// A freed index rests until so many are free: with the generations an id comes back after a million connections.
constexpr size_t kRestingIndexes = 1024;

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
    if (channel->connecting) ConnectDone(channel, (events & (EPOLLERR | EPOLLHUP)) != 0);
    else if (!channel->writable) Writable(channel);
  }
  if (news && !channel->closed && !channel->failed && !channel->connecting) Read(channel);
}

// `broken`: the socket may have an error; a connection that is only writable has none.
void Loop::ConnectDone(Channel* channel, bool broken) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (broken) getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  channel->connecting = false;
  if (error != 0) {
    Fail(channel, error, "");
    return;
  }
  channel->writable = true;
  MarkDirty(channel);  // what was written, or shut down, in the meantime
  CallEvent(channel, kEventConnected, 0);
}

void Loop::CheckError(Channel* channel) {
  int error = 0;
  socklen_t length = sizeof(error);
  if (channel->memory) error = ECONNRESET;
  else getsockopt(channel->fd, SOL_SOCKET, SO_ERROR, &error, &length);
  channel->broken = false;
  if (error != 0) Fail(channel, error, "");
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
  if (has_alert && !channel->memory) channel->out.Send(channel->fd, &pool_, false);
  if (!has_alert || !channel->memory) channel->out.Clear(&pool_);
  channel->tell_failed = true;
  MarkDirty(channel);
}

void Loop::MarkReady(Channel* channel) {
  if (channel->ready) return;
  channel->ready = true;
  ready_.push_back(channel->id);
}

void Loop::Unread(Channel* channel, const uint8_t* bytes, size_t n) {
  if (channel->tls || channel->failed || channel->closing) return;
  channel->unread.Prepend(&pool_, bytes, n);
  channel->readable = true;
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
  channel->unread.Clear(&pool_);
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
  channel->unread.Clear(&pool_);
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
