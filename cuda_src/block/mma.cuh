// Computes y[row,column] += sum over depth of a[row,depth] * b[column,depth] with mma.sync: 16 rows by 8
// columns per instruction, 16 deep in bf16 and f16, 8 deep in TF32.
//
// ldmatrix reads 8 lines of 16 bytes and hands each thread the words of its fragment: two 16-bit numbers or
// one 32-bit number per word. Its transposed form serves MN-major 16-bit operands; MN-major 32-bit operands
// are read number by number.
#pragma once

#include "common_src/major.h"
#include "cuda_src/block/math.cuh"
#include "cuda_src/block/store.cuh"

namespace convgrad::cuda {

template <Math kMath, typename Tile, Major kMajorA, Major kMajorB>
class MmaSum {
 public:
  using Stored = typename MathTypes<kMath>::Stored;
  using TileA = OperandTile<Stored, Tile::kRows, kMajorA>;
  using TileB = OperandTile<Stored, Tile::kColumns, kMajorB>;

  __device__ void multiply_add(const Stored* a, const Stored* b) {
    const int row = Tile::first_row(), column = Tile::first_column();
#pragma unroll
    for (int depth = 0; depth < kSliceDepth<Stored>; depth += kStep) {
      uint32_t a_words[kM][4], b_words[kN][2];
#pragma unroll
      for (int m = 0; m < kM; ++m) read_a(a_words[m], a, row + 16 * m, depth);
#pragma unroll
      for (int n = 0; n < kN; n += 2) read_b(b_words[n], b_words[n + 1], b, column + 8 * n, depth);
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int n = 0; n < kN; ++n) multiply(sum_[m][n], a_words[m], b_words[n]);
    }
  }

  template <typename Rows>
  __device__ void store(const Rows& rows) const {
    float bias[kN][2];
    rows.read_bias(Tile::first_column(), bias);
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float values[kN][2];
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          values[n][0] = sum_[m][n][2 * half];
          values[n][1] = sum_[m][n][2 * half + 1];
        }
        rows.store(Tile::first_row() + 16 * m + 8 * half + group(), Tile::first_column(), values, bias);
      }
  }

 private:
  static constexpr int kWord = 4 / sizeof(Stored);  // numbers per word
  static constexpr int kStep = 8 * kWord;           // the depth of an mma
  static constexpr int kM = Tile::kWarpRows / 16, kN = Tile::kWarpColumns / 8;
  static_assert(kM * 16 == Tile::kWarpRows && kN * 8 == Tile::kWarpColumns && kN % 2 == 0);

  // A lane's place in a fragment: row (or column) group(), words of depth in_group().
  __device__ static int lane() { return static_cast<int>(threadIdx.x) % 32; }
  __device__ static int group() { return lane() / 4; }
  __device__ static int in_group() { return lane() % 4; }

  __device__ static void multiply(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    if constexpr (kMath == Math::kBF16) mma_bf16_16x8x16(sum, a, b);
    if constexpr (kMath == Math::kF16) mma_f16_16x8x16(sum, a, b);
    if constexpr (kMath == Math::kTF32) mma_tf32_16x8x8(sum, a, b);
  }

  // Reads four matrices of 8 lines: words 0 and 1 are rows 0-7 and 8-15 of the first half of the depth, words
  // 2 and 3 of the second. Lanes 8j to 8j+7 name the lines of matrix j.
  __device__ static void read_a(uint32_t (&words)[4], const Stored* a, int row, int depth) {
    const int matrix = lane() / 8, line = lane() % 8;
    if constexpr (kMajorA == Major::kK) {
      ldmatrix_x4(words, a + TileA::chunk(row + matrix % 2 * 8 + line, depth / kChunk<Stored> + matrix / 2));
    } else if constexpr (kWord == 2) {
      ldmatrix_x4_trans(words,
                        a + TileA::chunk(depth + matrix / 2 * 8 + line, row / kChunk<Stored> + matrix % 2));
    } else {
#pragma unroll
      for (int word = 0; word < 4; ++word)
        words[word] =
            bits_at(a, TileA::element(row + word % 2 * 8 + group(), depth + word / 2 * 4 + in_group()));
    }
    round(words);
  }

  // Reads the same for columns: `first` is columns 0-7, `second` 8-15.
  __device__ static void read_b(uint32_t (&first)[2], uint32_t (&second)[2], const Stored* b, int column,
                                int depth) {
    const int matrix = lane() / 8, line = lane() % 8;
    uint32_t words[4];
    if constexpr (kMajorB == Major::kK) {
      ldmatrix_x4(words,
                  b + TileB::chunk(column + matrix / 2 * 8 + line, depth / kChunk<Stored> + matrix % 2));
    } else if constexpr (kWord == 2) {
      ldmatrix_x4_trans(
          words, b + TileB::chunk(depth + matrix % 2 * 8 + line, column / kChunk<Stored> + matrix / 2));
    } else {
#pragma unroll
      for (int word = 0; word < 4; ++word)
        words[word] =
            bits_at(b, TileB::element(column + word / 2 * 8 + group(), depth + word % 2 * 4 + in_group()));
    }
    round(words);
    first[0] = words[0], first[1] = words[1], second[0] = words[2], second[1] = words[3];
  }

  __device__ static uint32_t bits_at(const Stored* tile, int element) {
    return load_shared(reinterpret_cast<const uint32_t*>(tile + element));
  }

  // The tensor cores would truncate f32, which pulls every product towards zero.
  __device__ static void round(uint32_t (&words)[4]) {
    if constexpr (kMath == Math::kTF32) {
#pragma unroll
      for (int word = 0; word < 4; ++word) words[word] = to_tf32(__uint_as_float(words[word]));
    }
  }

  float sum_[kM][kN][4] = {};
};

template <typename Tile, Major kMajorA, Major kMajorB>
class GemmSum<Math::kBF16, Tile, kMajorA, kMajorB> : public MmaSum<Math::kBF16, Tile, kMajorA, kMajorB> {};
template <typename Tile, Major kMajorA, Major kMajorB>
class GemmSum<Math::kF16, Tile, kMajorA, kMajorB> : public MmaSum<Math::kF16, Tile, kMajorA, kMajorB> {};
template <typename Tile, Major kMajorA, Major kMajorB>
class GemmSum<Math::kTF32, Tile, kMajorA, kMajorB> : public MmaSum<Math::kTF32, Tile, kMajorA, kMajorB> {};

}  // namespace convgrad::cuda
