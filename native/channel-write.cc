// Writing to channels. Hot path: see bench/ (relay and pods).
#include <cerrno>
#include <cstring>
#include <sys/socket.h>
#include <sys/uio.h>

#include "loop.h"

namespace culvert {
namespace {

// Plaintext from here on is sealed from where it lies; smaller writes of a turn share a record.
constexpr size_t kSealDirectly = 4096;
// A queue of this size is offered to the kernel at once instead of at the end of the turn.
constexpr size_t kSendEarly = 256 * 1024;
constexpr size_t kMaxSlices = 64;
constexpr char kNotSealed[] = "tls error: a record could not be sealed";

// A FIN follows the last byte at once: both go in one segment, which saves the peer a wake-up and the network two packets.
bool EndsWhenFlushed(const Channel* channel) { return channel->shut_when_flushed || channel->closing; }

}  // namespace

void Loop::Writable(Channel* channel) {
  channel->writable = true;
  Flush(channel);
  if (channel->closed || channel->failed || channel->closing || !channel->tell_drained) return;
  if (channel->out.empty()) channel->tell_drained = false;
  CallEvent(channel, kEventDrained, static_cast<double>(channel->out.size()));
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
      sent = SendParts(channel->fd, parts, count, EndsWhenFlushed(channel));
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
    int error = channel->out.Send(channel->fd, &pool_, EndsWhenFlushed(channel));
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

}  // namespace culvert
