// A team of threads that work through the phases of one computation together.
//
// ONNX Runtime's own pool hands out one loop at a time; a decoder layer is six short loops with a barrier after each, and
// at one row a loop takes 20 us, so handing out would cost as much as the work. The members spin between phases, for a
// moment between computations, and then sleep. It knows threads, not what they compute.
#pragma once

#include <immintrin.h>
#include <sched.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace shammah {

// Pauses (about 40 ns each) before a waiting thread gives its core away: a neighbour may need it to let us go on.
constexpr int kSpinsInPhase = 2000;
// ... and before a member without work goes to sleep: longer than what lies between two steps of a generator that is busy
// (waking a sleeping thread takes 30 us).
constexpr int kSpinsIdle = 20000;

class Team {
 public:
  explicit Team(int size) : size_(size) {
    for (int rank = 1; rank < size; ++rank) threads_.emplace_back([this, rank] { work(rank); });
  }

  ~Team() {
    stopping_.store(true);
    epoch_.fetch_add(1);
    epoch_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int size() const { return size_; }

  // Runs body(rank) in every member, the caller being rank 0, and returns when all are done.
  void run(const std::function<void(int)>& body) {
    if (size_ == 1) return body(0);
    body_ = &body;
    running_.store(size_ - 1, std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_release);
    if (sleeping_.load() > 0) epoch_.notify_all();
    body(0);
    spin(kSpinsInPhase, [this] { return running_.load(std::memory_order_acquire) == 0; });
  }

  // Every member of a running body must come here before any goes on.
  void barrier() {
    if (size_ == 1) return;
    const unsigned phase = phase_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
      arrived_.store(0, std::memory_order_relaxed);
      phase_.store(phase + 1, std::memory_order_release);
      return;
    }
    spin(kSpinsInPhase, [this, phase] { return phase_.load(std::memory_order_acquire) != phase; });
  }

  // Memory that all members share, 64-byte aligned, kept from one computation to the next; only outside of run.
  template <class T>
  T* scratch(int place, size_t count) {
    if (places_.size() <= static_cast<size_t>(place)) places_.resize(place + 1);
    auto& memory = places_[place];
    const size_t bytes = count * sizeof(T) + 64;
    if (memory.size() < bytes) memory = std::vector<unsigned char>(bytes + bytes / 4);
    const auto address = reinterpret_cast<uintptr_t>(memory.data());
    return reinterpret_cast<T*>((address + 63) / 64 * 64);
  }

 private:
  template <class Done>
  static void spin(int spins, Done done) {
    for (int i = 0; !done(); ++i) i < spins ? _mm_pause() : static_cast<void>(sched_yield());
  }

  void work(int rank) {
    unsigned seen = 0;
    while (true) {
      for (int i = 0; i < kSpinsIdle && epoch_.load(std::memory_order_acquire) == seen; ++i) _mm_pause();
      if (epoch_.load() == seen) {
        sleeping_.fetch_add(1);
        epoch_.wait(seen);
        sleeping_.fetch_sub(1);
      }
      const unsigned now = epoch_.load(std::memory_order_acquire);
      if (now == seen) continue;
      seen = now;
      if (stopping_.load()) return;
      (*body_)(rank);
      running_.fetch_sub(1, std::memory_order_acq_rel);
    }
  }

  const int size_;
  std::vector<std::thread> threads_;
  std::vector<std::vector<unsigned char>> places_;
  const std::function<void(int)>* body_ = nullptr;
  alignas(64) std::atomic<unsigned> epoch_{0};
  alignas(64) std::atomic<int> running_{0};
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> phase_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
};

// All nodes of a session share the team of their session's number; it ends with the last of them.
inline std::shared_ptr<Team> find_team(int64_t number, int size) {
  static std::mutex lock;
  static std::map<int64_t, std::weak_ptr<Team>> teams;
  std::lock_guard<std::mutex> held(lock);
  std::erase_if(teams, [](const auto& entry) { return entry.second.expired(); });
  auto& known = teams[number];
  auto team = known.lock();
  if (!team) known = team = std::make_shared<Team>(size);
  return team;
}

// The part [begin, end) of `count` things that belongs to a member.
struct Part {
  int begin, end;
  Part(int count, int rank, int size)
      : begin(static_cast<int>(static_cast<int64_t>(count) * rank / size)),
        end(static_cast<int>(static_cast<int64_t>(count) * (rank + 1) / size)) {}
};

}  // namespace shammah
