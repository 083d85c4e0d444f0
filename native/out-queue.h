// Bytes that wait for a socket, in order.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace culvert {

struct Chunk {
  Chunk* next;
  uint32_t capacity;
  uint32_t start;
  uint32_t end;
  bool mapped;
  uint8_t* data() { return reinterpret_cast<uint8_t*>(this + 1); }
  size_t size() const { return end - start; }
  size_t room() const { return capacity - end; }
};

// The chunks of a thread. Small ones come from the allocator. The others are mapped one by one, since what an allocator is
// given back stays resident as long as anything lies behind it (150 stalled downloads left 70 MB); those that are free
// are kept for reuse until Release finds that nobody needed them.
class ChunkPool {
 public:
  static constexpr uint32_t kSmall = 2 * 1024;
  // Whole pages with its head.
  static constexpr uint32_t kLarge = 64 * 1024 - sizeof(Chunk);
  ChunkPool() = default;
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;
  ~ChunkPool();
  Chunk* Get(size_t capacity);
  void Put(Chunk* chunk);
  // Unmaps the free chunks that have not been needed since the last call, but for a few.
  void Release();

 private:
  struct FreeList {
    Chunk* first = nullptr;  // the one used last
    size_t count = 0;
    size_t least = 0;  // since the last Release
    void Shrink();
  };
  static constexpr size_t kSpare = 4;
  FreeList* ListOf(size_t capacity) { return capacity == kLarge ? &large_ : nullptr; }
  FreeList large_;
};

// sendmsg(2) without SIGPIPE; with send(2), which costs the kernel less, for a single part. `more` as MSG_MORE: the kernel
// may keep the last segment until what follows at once, be it the end of the connection.
ssize_t SendParts(int fd, iovec* parts, size_t count, bool more);

class OutQueue {
 public:
  OutQueue() = default;
  OutQueue(const OutQueue&) = delete;
  OutQueue& operator=(const OutQueue&) = delete;
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Room for `n` contiguous bytes at the end; Commit says how many of them were filled.
  uint8_t* Reserve(ChunkPool* pool, size_t n);
  void Commit(size_t n);
  void Append(ChunkPool* pool, const uint8_t* bytes, size_t n);
  // The same, in front of what is there.
  void Prepend(ChunkPool* pool, const uint8_t* bytes, size_t n);
  // Moves up to `room` bytes from the front to `to`; returns how many.
  size_t Take(ChunkPool* pool, uint8_t* to, size_t room);
  // Sends until the queue is empty or the socket is full. Returns 0 or an errno that ends the connection. `more`: as in
  // SendParts, behind the last byte.
  int Send(int fd, ChunkPool* pool, bool more);
  void Clear(ChunkPool* pool);

 private:
  void Consume(ChunkPool* pool, size_t n);
  Chunk* head_ = nullptr;
  Chunk* tail_ = nullptr;
  size_t size_ = 0;
};

}  // namespace culvert
