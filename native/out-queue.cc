#include "out-queue.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/socket.h>
#include <sys/uio.h>

namespace culvert {

ChunkPool::~ChunkPool() {
  while (free_ != nullptr) {
    Chunk* next = free_->next;
    std::free(free_);
    free_ = next;
  }
}

Chunk* ChunkPool::Get(size_t capacity) {
  Chunk* chunk = nullptr;
  if (capacity == kLarge && free_ != nullptr) {
    chunk = free_;
    free_ = chunk->next;
    free_count_--;
  } else {
    chunk = static_cast<Chunk*>(std::malloc(sizeof(Chunk) + capacity));
    if (chunk == nullptr) throw std::bad_alloc();
    chunk->capacity = static_cast<uint32_t>(capacity);
  }
  chunk->next = nullptr;
  chunk->start = chunk->end = 0;
  return chunk;
}

void ChunkPool::Put(Chunk* chunk) {
  if (chunk->capacity == kLarge && free_count_ < kMaxFree) {
    chunk->next = free_;
    free_ = chunk;
    free_count_++;
  } else {
    std::free(chunk);
  }
}

uint8_t* OutQueue::Reserve(ChunkPool* pool, size_t n) {
  if (tail_ == nullptr || tail_->room() < n) {
    Chunk* chunk = pool->Get(n > ChunkPool::kLarge ? n : ChunkPool::kLarge);
    if (tail_ == nullptr) head_ = chunk;
    else tail_->next = chunk;
    tail_ = chunk;
  }
  return tail_->data() + tail_->end;
}

void OutQueue::Commit(size_t n) {
  tail_->end += static_cast<uint32_t>(n);
  size_ += n;
}

void OutQueue::Append(ChunkPool* pool, const uint8_t* bytes, size_t n) {
  while (n > 0) {
    if (tail_ == nullptr || tail_->room() == 0) {
      size_t capacity = n <= ChunkPool::kSmall && size_ == 0 ? ChunkPool::kSmall : ChunkPool::kLarge;
      Chunk* chunk = pool->Get(capacity);
      if (tail_ == nullptr) head_ = chunk;
      else tail_->next = chunk;
      tail_ = chunk;
    }
    size_t part = n < tail_->room() ? n : tail_->room();
    std::memcpy(tail_->data() + tail_->end, bytes, part);
    Commit(part);
    bytes += part;
    n -= part;
  }
}

size_t OutQueue::Take(ChunkPool* pool, uint8_t* to, size_t room) {
  size_t taken = 0;
  while (taken < room && size_ > 0) {
    size_t part = head_->size() < room - taken ? head_->size() : room - taken;
    std::memcpy(to + taken, head_->data() + head_->start, part);
    taken += part;
    Consume(pool, part);
  }
  return taken;
}

ssize_t SendParts(int fd, iovec* parts, size_t count) {
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  ssize_t sent;
  do {
    sent = count == 1 ? send(fd, parts[0].iov_base, parts[0].iov_len, MSG_NOSIGNAL) : sendmsg(fd, &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

int OutQueue::Send(int fd, ChunkPool* pool) {
  while (size_ > 0) {
    iovec parts[16];
    size_t count = 0;
    for (Chunk* chunk = head_; chunk != nullptr && count < 16; chunk = chunk->next) {
      if (chunk->size() == 0) continue;
      parts[count].iov_base = chunk->data() + chunk->start;
      parts[count].iov_len = chunk->size();
      count++;
    }
    ssize_t n = SendParts(fd, parts, count);
    if (n < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
      return errno;
    }
    Consume(pool, static_cast<size_t>(n));
  }
  // The last chunk goes too: an idle connection holds no buffer.
  Clear(pool);
  return 0;
}

void OutQueue::Consume(ChunkPool* pool, size_t n) {
  size_ -= n;
  while (n > 0) {
    Chunk* chunk = head_;
    size_t part = n < chunk->size() ? n : chunk->size();
    chunk->start += static_cast<uint32_t>(part);
    n -= part;
    if (chunk->size() == 0) {
      head_ = chunk->next;
      if (head_ == nullptr) tail_ = nullptr;
      pool->Put(chunk);
    }
  }
}

void OutQueue::Clear(ChunkPool* pool) {
  while (head_ != nullptr) {
    Chunk* next = head_->next;
    pool->Put(head_);
    head_ = next;
  }
  tail_ = nullptr;
  size_ = 0;
}

}  // namespace culvert
