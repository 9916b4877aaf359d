// SPDX-License-Identifier: Apache-2.0
// Types of plain scalars: the core schema of YAML 1.2 (section 10.3.2), and our ranges `0..39`.
#include <charconv>
#include <cstdint>

#include "harness/yaml_document.h"

namespace raingauge {
namespace {

using nlohmann::json;

bool one_of(std::string_view text, std::initializer_list<std::string_view> words) {
  for (const auto word : words) {
    if (text == word) return true;
  }
  return false;
}

// All of `digits` as an integer of `base`; nothing when it is none. Beyond 64 bits: Error.
std::optional<json> integer_scalar(std::string_view digits, bool negative, int base) {
  std::uint64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto [stop, error] = std::from_chars(digits.data(), end, value, base);
  if (digits.empty() || stop != end) return std::nullopt;
  const std::uint64_t limit = std::uint64_t{1} << 63;
  if (error == std::errc::result_out_of_range || (negative && value > limit)) {
    throw Error("integer " + std::string(digits) + " does not fit 64 bits");
  }
  if (!negative && value >= limit) return json(value);
  return json(negative ? static_cast<std::int64_t>(0 - value) : static_cast<std::int64_t>(value));
}

std::size_t count_digits(std::string_view text, std::size_t from) {
  std::size_t count = 0;
  while (from + count < text.size() && text[from + count] >= '0' && text[from + count] <= '9')
    ++count;
  return count;
}

// [-+]? ( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?  , without the sign
bool is_decimal(std::string_view text) {
  std::size_t at = count_digits(text, 0);
  std::size_t digits = at;
  if (at < text.size() && text[at] == '.') {
    const std::size_t fraction = count_digits(text, at + 1);
    digits += fraction;
    at += 1 + fraction;
  }
  if (digits == 0) return false;
  if (at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    ++at;
    if (at < text.size() && (text[at] == '+' || text[at] == '-')) ++at;
    const std::size_t exponent = count_digits(text, at);
    if (exponent == 0) return false;
    at += exponent;
  }
  return at == text.size();
}

}  // namespace

json typed_scalar(const std::string& text) {
  if (one_of(text, {"", "~", "null", "Null", "NULL"})) return nullptr;
  if (one_of(text, {"true", "True", "TRUE"})) return true;
  if (one_of(text, {"false", "False", "FALSE"})) return false;
  const bool negative = text[0] == '-';
  const std::string_view bare = std::string_view(text).substr(negative || text[0] == '+' ? 1 : 0);
  if (one_of(bare, {".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"})) {
    throw Error("got " + text + ", a finite number is needed");
  }
  if (const auto value = integer_scalar(bare, negative, 10)) return *value;
  if (bare.size() == text.size() && bare.substr(0, 2) == "0x") {
    if (const auto value = integer_scalar(bare.substr(2), false, 16)) return *value;
  }
  if (bare.size() == text.size() && bare.substr(0, 2) == "0o") {
    if (const auto value = integer_scalar(bare.substr(2), false, 8)) return *value;
  }
  if (!is_decimal(bare)) return text;
  double value = 0.0;
  const auto [stop, error] = std::from_chars(bare.data(), bare.data() + bare.size(), value);
  if (error != std::errc() || stop != bare.data() + bare.size()) {
    throw Error("got " + text + ", which no double can hold");
  }
  return negative ? -value : value;
}

std::optional<std::vector<int>> parse_range(std::string_view text) {
  const std::size_t dots = text.find("..");
  if (dots == std::string_view::npos || text.find('.', dots + 2) != std::string_view::npos) {
    return std::nullopt;
  }
  const std::string_view low = text.substr(0, dots);
  const std::string_view high = text.substr(dots + 2);
  if (low.empty() || high.empty() || count_digits(low, 0) != low.size() ||
      count_digits(high, 0) != high.size()) {
    return std::nullopt;
  }
  constexpr int kMaxCount = 100000;
  const bool short_enough = low.size() <= 9 && high.size() <= 9;
  const int first = short_enough ? std::stoi(std::string(low)) : 0;
  const int last = short_enough ? std::stoi(std::string(high)) : -1;
  if (last < first || last - first >= kMaxCount) {
    throw Error("range " + std::string(text) + ": expected FIRST..LAST, rising, of at most " +
                std::to_string(kMaxCount) + " numbers");
  }
  std::vector<int> numbers;
  for (int number = first; number <= last; ++number) numbers.push_back(number);
  return numbers;
}

}  // namespace raingauge
