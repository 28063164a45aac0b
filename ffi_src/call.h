// One FFI call: attributes, operands and results, whose numbers are checked before use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "ffi_src/decode.h"
#include "xla/ffi/api/ffi.h"

namespace convgrad {

class Call {
 public:
  Call(const ffi::Dictionary& attributes, ffi::RemainingArgs operands, ffi::RemainingRets results)
      : attributes(attributes), operands_(operands), results_(results) {}

  const ffi::Dictionary& attributes;

  void expect(size_t operands, size_t results) const {
    if (operands_.size() != operands || results_.size() != results)
      throw InvalidArgument("jax_convgrad: the op takes " + std::to_string(operands) +
                            " operands and gives " + std::to_string(results) + " results, the call has " +
                            std::to_string(operands_.size()) + " and " + std::to_string(results_.size()));
  }

  size_t operands() const { return operands_.size(); }
  ffi::AnyBuffer operand(size_t index) const { return *operands_.get<ffi::AnyBuffer>(index); }
  ffi::AnyBuffer result(size_t index) const { return **results_.get<ffi::AnyBuffer>(index); }

  // Decodes the epilogue of fprop, whose third operand, if present, is the bias.
  Epilogue epilogue(const ConvProblem& problem) const {
    return operands() == 3 ? decode_epilogue(attributes, problem, result(0), operand(2))
                           : decode_epilogue(attributes, problem);
  }

  // Returns pooling's positions. Decoding the same call checks their dtype and shape.
  const int32_t* positions(size_t index) const {
    return static_cast<const int32_t*>(operand(index).untyped_data());
  }

 private:
  ffi::RemainingArgs operands_;
  ffi::RemainingRets results_;
};

}  // namespace convgrad
