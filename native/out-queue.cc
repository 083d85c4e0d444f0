#include "out-queue.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace culvert {

namespace {

Chunk* Map(size_t capacity) {
  void* memory = mmap(nullptr, sizeof(Chunk) + capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  // Chunks that lie side by side could share huge pages, of which a single byte in use keeps 2 MB.
  madvise(memory, sizeof(Chunk) + capacity, MADV_NOHUGEPAGE);
  auto* chunk = static_cast<Chunk*>(memory);
  chunk->mapped = true;
  return chunk;
}

Chunk* Allocate(size_t capacity) {
  auto* chunk = static_cast<Chunk*>(std::malloc(sizeof(Chunk) + capacity));
  if (chunk == nullptr) throw std::bad_alloc();
  chunk->mapped = false;
  return chunk;
}

void UnmapAll(Chunk* chunk) {
  while (chunk != nullptr) {
    Chunk* next = chunk->next;
    munmap(chunk, sizeof(Chunk) + chunk->capacity);
    chunk = next;
  }
}

}  // namespace

ChunkPool::~ChunkPool() {
  UnmapAll(large_.first);
}

Chunk* ChunkPool::Get(size_t capacity) {
  FreeList* list = ListOf(capacity);
  Chunk* chunk = nullptr;
  if (list != nullptr && list->first != nullptr) {
    chunk = list->first;
    list->first = chunk->next;
    list->count--;
    if (list->count < list->least) list->least = list->count;
  } else if (list != nullptr) {
    chunk = Map(capacity);
  }
  // A process may have so many mappings only (vm.max_map_count).
  if (chunk == nullptr) chunk = Allocate(capacity);
  chunk->capacity = static_cast<uint32_t>(capacity);
  chunk->next = nullptr;
  chunk->start = chunk->end = 0;
  return chunk;
}

void ChunkPool::Put(Chunk* chunk) {
  if (!chunk->mapped) {
    std::free(chunk);
    return;
  }
  FreeList* list = ListOf(chunk->capacity);
  chunk->next = list->first;
  list->first = chunk;
  list->count++;
}

void ChunkPool::Release() {
  large_.Shrink();
}

void ChunkPool::FreeList::Shrink() {
  if (least > kSpare) {
    // Those at the end have rested longest.
    count -= least - kSpare;
    Chunk** rest = &first;
    for (size_t i = 0; i < count; i++) rest = &(*rest)->next;
    UnmapAll(*rest);
    *rest = nullptr;
  }
  least = count;
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
      // Nothing in between: chunks of 16 KB cost a bulk stream a fifth more CPU (bench/: relay).
      size_t capacity = size_ + n <= ChunkPool::kSmall ? ChunkPool::kSmall : ChunkPool::kLarge;
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

void OutQueue::Prepend(ChunkPool* pool, const uint8_t* bytes, size_t n) {
  if (n == 0) return;
  OutQueue front;
  front.Append(pool, bytes, n);
  front.tail_->next = head_;
  head_ = front.head_;
  if (tail_ == nullptr) tail_ = front.tail_;
  size_ += n;
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

ssize_t SendParts(int fd, iovec* parts, size_t count, bool more) {
  const int flags = MSG_NOSIGNAL | (more ? MSG_MORE : 0);
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  ssize_t sent;
  do {
    sent = count == 1 ? send(fd, parts[0].iov_base, parts[0].iov_len, flags) : sendmsg(fd, &message, flags);
  } while (sent < 0 && errno == EINTR);
  return sent;
}

int OutQueue::Send(int fd, ChunkPool* pool, bool more) {
  while (size_ > 0) {
    iovec parts[16];
    size_t count = 0;
    for (Chunk* chunk = head_; chunk != nullptr && count < 16; chunk = chunk->next) {
      if (chunk->size() == 0) continue;
      parts[count].iov_base = chunk->data() + chunk->start;
      parts[count].iov_len = chunk->size();
      count++;
    }
    ssize_t n = SendParts(fd, parts, count, more);
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
