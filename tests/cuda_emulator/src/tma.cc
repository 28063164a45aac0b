#include "cuda_emulator/tma.h"

#include <cstring>
#include <string>

#include "address.h"
#include "block.h"
#include "launch_counters.h"
#include "mbarrier_access.h"
#include "swizzle.h"

namespace cuda_emulator {
namespace {

constexpr uintptr_t kMapAlignment = 64, kSectorBytes = 32;

[[noreturn]] void refuse(const char* instruction, const std::string& why) {
  fail(Block::current()->where_running() + ", " + instruction + ": " + why);
}

EncodedMap decode(const char* instruction, const void* map) {
  if (reinterpret_cast<uintptr_t>(map) % kMapAlignment != 0)
    refuse(instruction, "a tensor map at no multiple of 64 bytes");
  EncodedMap encoded;
  std::memcpy(&encoded, map, sizeof encoded);
  if (encoded.kind != kTiledMap && encoded.kind != kIm2colMap)
    refuse(instruction, "what should be a tensor map has never been encoded");
  return encoded;
}

void count(const Box& box) {
  GlobalTraffic& traffic = launch_counters->tma_global;
  ++traffic.instructions;
  BoxLines lines(box);
  for (BoxLine line; lines.next(line);) {
    if (!line.from) continue;
    const uintptr_t first = reinterpret_cast<uintptr_t>(line.from), end = first + line.bytes;
    traffic.bytes += line.bytes;
    traffic.sectors += (end + kSectorBytes - 1) / kSectorBytes - first / kSectorBytes;
  }
}

void issue(const char* instruction, void* shared, uint64_t* barrier, const Box& box) {
  if (box.map.line_bytes() != static_cast<int64_t>(kLineBytes))
    refuse(instruction, "a box whose lines are " + std::to_string(box.map.line_bytes()) +
                            " bytes and not 128: where the swizzle puts those is not documented");
  TmaCopy copy{};
  copy.box = box;
  check_shared_range(instruction, shared, copy.bytes(), kLineBytes);
  const Mbarrier& state = mbarrier_at(instruction, barrier);
  if (!state.fenced)
    refuse(instruction, "the mbarrier at byte " + std::to_string(state.offset) +
                            " has not been fenced since it was initialised");
  Block& block = *Block::current();
  copy.shared = static_cast<unsigned char*>(block.shared_memory());
  copy.to = shared_offset(shared);
  copy.barrier = state.offset;
  copy.phase = state.phase;
  if (launch_counters) count(box);
  block.issue(copy);
}

Box box_of(const char* instruction, const void* map, uint32_t kind, int rank, const int* at) {
  Box box{};
  box.map = decode(instruction, map);
  if (box.map.kind != kind) refuse(instruction, "a tensor map of the other kind");
  if (box.map.rank != rank)
    refuse(instruction,
           std::to_string(rank) + " coordinates for a tensor map of rank " + std::to_string(box.map.rank));
  for (int d = 0; d < rank; ++d) box.at[d] = at[d];
  return box;
}

}  // namespace

void tma_prefetch(const void* map) { decode("prefetch.tensormap", map); }

void tma_load(void* shared, const void* map, uint64_t* barrier, int rank, const int* at) {
  constexpr const char* kName = "cp.async.bulk.tensor";
  issue(kName, shared, barrier, box_of(kName, map, kTiledMap, rank, at));
}

void tma_load_im2col(void* shared, const void* map, uint64_t* barrier, int rank, const int* at,
                     const int* offset) {
  constexpr const char* kName = "cp.async.bulk.tensor.im2col";
  Box box = box_of(kName, map, kIm2colMap, rank, at);
  const int offset_end = rank == 3 ? 1 << 16 : rank == 4 ? 1 << 8 : 1 << 5;
  for (int axis = 0; axis < box.map.spatial(); ++axis) {
    const int64_t pixel = box.at[axis + 1], first = box.map.first_pixel(axis);
    if (pixel < first || pixel > box.map.last_pixel(axis) || (pixel - first) % box.map.step[axis] != 0)
      refuse(kName, "begins at " + std::to_string(pixel) + " on axis " + std::to_string(axis) +
                        ", where base pixels run from " + std::to_string(first) + " to " +
                        std::to_string(box.map.last_pixel(axis)) + " in steps of " +
                        std::to_string(box.map.step[axis]));
    if (offset[axis] < 0 || offset[axis] >= offset_end)
      refuse(kName, "an offset of " + std::to_string(offset[axis]) + ", and rank " + std::to_string(rank) +
                        " has room for 0 to " + std::to_string(offset_end - 1));
    box.offset[axis] = offset[axis];
  }
  issue(kName, shared, barrier, box);
}

}  // namespace cuda_emulator
