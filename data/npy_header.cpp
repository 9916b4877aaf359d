// SPDX-License-Identifier: Apache-2.0
#include "data/npy_header.h"

#include <array>
#include <charconv>
#include <string_view>

#include "data/array_file.h"
#include "data/error.h"

namespace raingauge {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kMostHeader = 1 << 16;

// A cursor over the dict literal; every step either matches or throws.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& path) : text_(text), path_(path) {}

  NpyHeader parse() {
    NpyHeader header;
    std::array<bool, 3> seen{};
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      read_value(key, header, seen);
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    if (!seen[0] || !seen[1] || !seen[2]) fail("lacks descr, fortran_order or shape");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(path_ + ": not a NumPy file this program reads: the header " + what);
  }

  void read_value(const std::string& key, NpyHeader& header, std::array<bool, 3>& seen) {
    const std::size_t index = key == "descr"           ? 0
                              : key == "fortran_order" ? 1
                              : key == "shape"         ? 2
                                                       : 3;
    if (index == 3) fail("has an unknown key '" + key + "'");
    if (seen[index]) fail("has '" + key + "' twice");
    seen[index] = true;
    if (index == 0) header.descr = quoted();
    if (index == 1) header.fortran_order = boolean();
    if (index == 2) header.shape = tuple();
  }

  char peek() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  bool accept(char wanted) {
    if (peek() != wanted) return false;
    ++at_;
    return true;
  }
  void expect(char wanted) {
    if (!accept(wanted)) fail(std::string("lacks '") + wanted + "' at byte " + std::to_string(at_));
  }

  std::string quoted() {
    const char quote = peek();
    if (quote == '[') fail("describes a structured type; frames are uint8");
    if (quote != '\'' && quote != '"') fail("lacks a string at byte " + std::to_string(at_));
    const std::size_t end = text_.find(quote, ++at_);
    if (end == std::string_view::npos) fail("has a string without end");
    const std::string value(text_.substr(at_, end - at_));
    at_ = end + 1;
    return value;
  }

  bool boolean() {
    peek();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) != word) continue;
      at_ += word.size();
      return value;
    }
    fail("has no True or False for fortran_order");
  }

  std::vector<std::int64_t> tuple() {
    std::vector<std::int64_t> values;
    expect('(');
    while (!accept(')')) {
      peek();
      std::int64_t value = 0;
      const char* begin = text_.data() + at_;
      const auto [end, problem] = std::from_chars(begin, text_.data() + text_.size(), value);
      if (problem != std::errc() || value < 0) fail("has a shape that is no list of sizes");
      at_ += static_cast<std::size_t>(end - begin);
      values.push_back(value);
      if (!accept(',')) {
        expect(')');
        break;
      }
    }
    return values;
  }

  std::string_view text_;
  const std::string& path_;
  std::size_t at_ = 0;
};

std::string read_bytes(std::ifstream& file, std::size_t count, const std::string& path) {
  std::string bytes(count, '\0');
  if (!file.read(bytes.data(), static_cast<std::streamsize>(count))) {
    throw Error(path + ": the file ends inside the NumPy header");
  }
  return bytes;
}

std::size_t header_length(std::ifstream& file, const std::string& path) {
  const std::string start = read_bytes(file, 8, path);
  if (start.compare(0, kMagic.size(), kMagic) != 0) {
    throw Error(path + ": not a NumPy file (it does not start with \\x93NUMPY)");
  }
  const int version = static_cast<unsigned char>(start[6]);
  if (version < 1 || version > 3) {
    throw Error(path + ": NumPy format version " + std::to_string(version) +
                "; known are 1, 2 and 3");
  }
  const std::string bytes = read_bytes(file, version == 1 ? 2 : 4, path);
  std::size_t length = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) {
    length = length << 8U | static_cast<unsigned char>(bytes[i]);
  }
  if (length > kMostHeader) {
    throw Error(path + ": a NumPy header of " + std::to_string(length) + " bytes; at most 65536");
  }
  return length;
}

// NumPy's name of a type -> safetensors'. bf16 has none in NumPy.
std::string type_of(const std::string& descr, const std::string& path) {
  constexpr std::array<std::pair<const char*, const char*>, 12> kKnown{{{"f4", "F32"},
                                                                        {"f8", "F64"},
                                                                        {"f2", "F16"},
                                                                        {"b1", "BOOL"},
                                                                        {"u1", "U8"},
                                                                        {"i1", "I8"},
                                                                        {"u2", "U16"},
                                                                        {"i2", "I16"},
                                                                        {"u4", "U32"},
                                                                        {"i4", "I32"},
                                                                        {"u8", "U64"},
                                                                        {"i8", "I64"}}};
  const bool little = descr.size() == 3 && (descr[0] == '<' || descr[0] == '|');
  for (const auto& [name, type] : kKnown) {
    if (little && descr.substr(1) == name) return type;
  }
  throw Error(path + ": elements of type '" + descr +
              "'; allowed are little-endian floats and integers, and booleans");
}

}  // namespace

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const auto side : shape) text += (text.empty() ? "[" : ", ") + std::to_string(side);
  return text.empty() ? "[]" : text + "]";
}

NpyHeader read_npy_header(std::ifstream& file, const std::string& path) {
  const std::string text = read_bytes(file, header_length(file, path), path);
  return HeaderParser(text, path).parse();
}

ArrayFile open_npy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(path + ": cannot be opened");
  const NpyHeader header = read_npy_header(file, path);
  StoredArray array;
  array.type = type_of(header.descr, path);
  array.shape = header.shape;
  array.fortran_order = header.fortran_order;
  array.offset = file.tellg();
  file.seekg(0, std::ios::end);
  array.bytes = file.tellg() - std::streamoff(array.offset);
  std::int64_t expected = size_of_type(array.type);
  for (const std::int64_t side : array.shape) {
    if (__builtin_mul_overflow(expected, side, &expected)) expected = -1;
    if (expected < 0) break;
  }
  if (expected != array.bytes) {
    throw Error(path + ": " + std::to_string(array.bytes) + " bytes of elements do not fit shape " +
                shape_text(array.shape));
  }
  return {path, {array}, {}};
}

std::string npy_header(const std::string& descr, const std::vector<std::int64_t>& shape) {
  std::string sides;
  for (const std::int64_t side : shape) sides += (sides.empty() ? "" : ", ") + std::to_string(side);
  if (shape.size() == 1) sides += ",";  // Python's tuple of one
  std::string header =
      "{'descr': '" + descr + "', 'fortran_order': False, 'shape': (" + sides + "), }";
  // Magic, version, length and header together fill a multiple of 64 bytes and end in a newline.
  const std::size_t before = kMagic.size() + 4;
  header.append(63 - (before + header.size()) % 64, ' ');
  header.push_back('\n');
  std::string bytes(kMagic);
  bytes += {'\x01', '\0', static_cast<char>(header.size() & 0xFFU),
            static_cast<char>(header.size() >> 8U)};
  return bytes + header;
}

}  // namespace raingauge
