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
  uint8_t* data() { return reinterpret_cast<uint8_t*>(this + 1); }
  size_t size() const { return end - start; }
  size_t room() const { return capacity - end; }
};

// Keeps a few large chunks of a thread for reuse; every other chunk is given back to the allocator at once, so that a
// burst does not stay resident.
class ChunkPool {
 public:
  static constexpr uint32_t kLarge = 64 * 1024;
  static constexpr uint32_t kSmall = 2 * 1024;
  ChunkPool() = default;
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;
  ~ChunkPool();
  Chunk* Get(size_t capacity);
  void Put(Chunk* chunk);

 private:
  static constexpr int kMaxFree = 16;
  Chunk* free_ = nullptr;
  int free_count_ = 0;
};

// sendmsg(2) without SIGPIPE; with send(2), which costs the kernel less, for a single part.
ssize_t SendParts(int fd, iovec* parts, size_t count);

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
  // Moves up to `room` bytes from the front to `to`; returns how many.
  size_t Take(ChunkPool* pool, uint8_t* to, size_t room);
  // Sends until the queue is empty or the socket is full. Returns 0 or an errno that ends the connection.
  int Send(int fd, ChunkPool* pool);
  void Clear(ChunkPool* pool);

 private:
  void Consume(ChunkPool* pool, size_t n);
  Chunk* head_ = nullptr;
  Chunk* tail_ = nullptr;
  size_t size_ = 0;
};

}  // namespace culvert
