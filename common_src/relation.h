// Solves the relation instead of searching it. Given one of o, r and i, the equation
//
//     o * stride + r * filter_dilation - pad_lo  =  i * input_dilation
//
// is a linear congruence in another, whose solutions are an arithmetic progression. Finding its first element
// takes one modular inverse per axis, so no cost grows with a stride, dilation or padding.
#pragma once

#include <cstdint>

#include "common_src/integers.h"
#include "common_src/problem.h"

namespace convgrad {

CONVGRAD_HD inline int64_t greatest_common_divisor(int64_t a, int64_t b) {
  while (b != 0) {
    const int64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// Returns b's remainder in [0, modulus).
CONVGRAD_HD inline int64_t remainder_of(int64_t b, int64_t modulus) {
  const int64_t rest = b % modulus;
  return rest < 0 ? rest + modulus : rest;
}

// Solves a * x = b (mod modulus) for a fixed a; both a and modulus are in [1, 2^31).
struct Congruence {
  int64_t modulus, common;  // common is the greatest common divisor of a and modulus, which must divide b
  int64_t step;             // from one solution x to the next
  int64_t inverse;          // of a / common, modulo step

  CONVGRAD_HD Congruence(int64_t a, int64_t modulus)
      : modulus(modulus), common(greatest_common_divisor(a, modulus)), step(modulus / common), inverse(0) {
    // The extended Euclidean algorithm: in every round  factor * (a / common) = rest  (mod step).
    int64_t last = step, rest = a / common % step, last_factor = 0, factor = 1;
    while (rest != 0) {
      const int64_t quotient = last / rest, next = last - quotient * rest;
      const int64_t next_factor = last_factor - quotient * factor;
      last = rest;
      rest = next;
      last_factor = factor;
      factor = next_factor;
    }
    inverse = step == 1 ? 0 : remainder_of(last_factor, step);
  }

  // Returns the least solution x >= 0, or kNone if there is none.
  CONVGRAD_HD int64_t first(int64_t b) const {
    if (modulus == 1) return 0;
    const int64_t rest = remainder_of(b, modulus);
    if (common == 1) return inverse == 1 ? rest : rest * inverse % step;
    return rest % common == 0 ? rest / common * inverse % step : kNone;
  }
};

// The numbers first + step * j, j in [0, count), each with its partner, partner + partner_step * j.
struct Progression {
  int64_t first, step, count;
  int64_t partner, partner_step;

  CONVGRAD_HD int64_t at(int64_t j) const { return first + step * j; }
  CONVGRAD_HD int64_t partner_at(int64_t j) const { return partner + partner_step * j; }
};

// Everything that is tied to a given position of an axis, such as the taps tied to an output. Prepared once
// per axis, then asked for each position. With x the numbers that are sought and y their partners:
//
//     x * x_factor  =  at + y * y_factor,   0 <= x < x_count,   0 <= y < y_count
//
// y increases with x.
class Tied {
 public:
  CONVGRAD_HD Tied(int64_t x_factor, int64_t x_count, int64_t y_factor, int64_t y_count)
      : solve_(x_factor, y_factor),
        x_factor_(x_factor),
        x_count_(x_count),
        y_factor_(y_factor),
        y_count_(y_count),
        y_step_(x_factor / solve_.common) {}

  // Return the steps of every progression.
  CONVGRAD_HD int64_t step() const { return solve_.step; }
  CONVGRAD_HD int64_t partner_step() const { return y_step_; }

  CONVGRAD_HD Progression from(int64_t at) const {
    Progression found{0, solve_.step, 0, 0, y_step_};
    int64_t x = solve_.first(at);
    if (x == kNone || x >= x_count_) return found;
    // Most steps are one, and a test is cheaper than the division.
    int64_t y = x * x_factor_ - at;
    if (y_factor_ != 1) y /= y_factor_;  // leaves no remainder
    if (y < 0) {
      const int64_t skipped = steps_over(-y, y_step_);
      x += skipped * solve_.step;
      y += skipped * y_step_;
    }
    if (x >= x_count_ || y >= y_count_) return found;
    const int64_t by_x = steps_over(x_count_ - x, solve_.step), by_y = steps_over(y_count_ - y, y_step_);
    found.first = x;
    found.partner = y;
    found.count = by_x < by_y ? by_x : by_y;
    return found;
  }

 private:
  Congruence solve_;
  int64_t x_factor_, x_count_, y_factor_, y_count_, y_step_;
};

// Finds the taps that tie an output to inputs: taps_of_output(axis).from(axis.pad_lo - o * axis.stride).
CONVGRAD_HD inline Tied taps_of_output(const Axis& axis) {
  return Tied(axis.filter_dilation, axis.taps, axis.input_dilation, axis.input);
}

// Finds the outputs that a tap ties to inputs: outputs_of_tap(axis).from(axis.pad_lo - r *
// axis.filter_dilation).
CONVGRAD_HD inline Tied outputs_of_tap(const Axis& axis) {
  return Tied(axis.stride, axis.output, axis.input_dilation, axis.input);
}

// Returns the taps that tie input i to outputs, ascending, so that the outputs descend: r' = taps - 1 - r of
// the transposed axis.
CONVGRAD_HD inline Progression taps_of_input(const Axis& axis, int64_t i) {
  const Axis other = axis.transpose();
  Progression tied = taps_of_output(other).from(other.pad_lo - i * other.stride);
  if (tied.count == 0) return tied;
  tied.first = axis.taps - 1 - tied.at(tied.count - 1);
  tied.partner = tied.partner_at(tied.count - 1);
  tied.partner_step = -tied.partner_step;
  return tied;
}

}  // namespace convgrad
