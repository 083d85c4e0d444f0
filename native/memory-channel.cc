// Channels without a socket: TLS whose records travel in something else, such as a stream of another tunnel (double HBONE).
// TypeScript, the carrier, delivers what has arrived and takes what is to be sent. Reading and sending happen in the turn
// of the loop as for sockets, so a carrier may call from inside any callback: what it delivers is copied, and opened later.
#include <cerrno>

#include "loop.h"

namespace culvert {

ssize_t MemoryEnd::Receive(ChunkPool* pool, uint8_t* to, size_t room) {
  if (!in.empty()) return static_cast<ssize_t>(in.Take(pool, to, room));
  if (in_ended && !in_reset) return 0;
  errno = in_reset ? ECONNRESET : EAGAIN;
  return -1;
}

uint32_t Loop::AttachMemory() {
  Channel* channel = NewChannel(-1);
  if (channel == nullptr) return 0;
  channel->memory = std::make_unique<MemoryEnd>();
  return channel->id;
}

void Loop::Deliver(Channel* channel, const uint8_t* bytes, size_t n) {
  if (!channel->memory || channel->memory->in_ended || channel->read_ended || channel->failed || channel->closing) return;
  channel->memory->in.Append(&pool_, bytes, n);
  channel->readable = true;
  if (channel->read_limit > 0) MarkReady(channel);
}

void Loop::DeliverEnd(Channel* channel) {
  if (!channel->memory || channel->memory->in_ended || channel->failed) return;
  channel->memory->in_ended = true;
  channel->readable = channel->read_to_end = true;
  if (channel->read_limit > 0) MarkReady(channel);
}

void Loop::DeliverReset(Channel* channel) {
  if (!channel->memory) return;
  if (channel->read_limit == 0 || channel->memory->in.empty()) {
    Fail(channel, ECONNRESET, "");
    return;
  }
  // What came before it is read first.
  channel->memory->in_reset = channel->broken = true;
  channel->readable = channel->read_to_end = true;
  MarkReady(channel);
}

size_t Loop::Take(Channel* channel, uint8_t* to, size_t room) {
  if (!channel->memory) return 0;
  Flush(channel);
  if (channel->closed) return 0;
  size_t n = channel->out.Take(&pool_, to, room);
  if (n > 0) {
    channel->memory->taken = true;
    MarkDirty(channel);  // for what waits until the queue is empty
  }
  return n;
}

void Loop::TellCarrier(Channel* channel) {
  MemoryEnd* end = channel->memory.get();
  if (!channel->closed && !channel->out.empty()) CallEvent(channel, kEventOutput, static_cast<double>(channel->out.size()));
  if (channel->closed) return;
  if (end->tell_shut) {
    end->tell_shut = false;
    CallEvent(channel, kEventOutputEnd, 0);
    if (channel->closed) return;
  }
  if (!end->taken) return;
  end->taken = false;
  // An empty queue is told as for any other channel.
  if (channel->tell_drained && !channel->out.empty() && !channel->failed && !channel->closing) {
    CallEvent(channel, kEventDrained, static_cast<double>(channel->out.size()));
  }
}

}  // namespace culvert
