// SPDX-License-Identifier: Apache-2.0
// Reads YAML text into a YamlDocument: scalar types, anchors, merge keys, limits. Hostile text
// (binary, deep, self-referring, exploding aliases) ends as a ConfigError with file and line.
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <cstdint>
#include <fstream>
#include <memory>
#include <set>
#include <sstream>

#include "harness/yaml_document.h"

namespace raingauge {
namespace {

using nlohmann::json;

constexpr std::uintmax_t kMaxBytes = std::uintmax_t{1} << 20;
constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxValues = 200000;  // after aliases are expanded

[[noreturn]] void fail_at(const std::string& label, int line, const std::string& message) {
  throw ConfigError(label + ":" + std::to_string(line) + ": " + message);
}

struct Node;
using NodePtr = std::shared_ptr<Node>;

struct Entry {
  std::string key;  // empty for items of a list
  int line = 1;     // of the key, or of the item
  NodePtr value;
};

struct Node {
  enum class Kind { scalar, list, mapping } kind = Kind::scalar;
  json scalar;
  int line = 1;
  std::vector<Entry> entries;
  bool open = true;  // its end has not been read yet: an alias to it would be a cycle
};

json tagged_scalar(const std::string& tag, const std::string& text) {
  const std::string core = "tag:yaml.org,2002:";
  if (tag == "!" || tag == core + "str") return text;
  const json value = typed_scalar(text);
  if (tag.empty() || tag == "?") return value;
  if (tag == core + "int" && value.is_number_integer()) return value;
  if (tag == core + "float" && value.is_number()) return value.get<double>();
  if (tag == core + "bool" && value.is_boolean()) return value;
  if (tag == core + "null" && value.is_null()) return value;
  throw Error("tag '" + tag + "' does not fit '" + text +
              "'; allowed: !!str !!int !!float !!bool !!null");
}

// Builds the tree of nodes from the parser's events.
class TreeBuilder : public YAML::EventHandler {
 public:
  explicit TreeBuilder(std::string label) : label_(std::move(label)) {}
  NodePtr root() const { return root_; }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    if (expects_key()) fail(mark, "a key must be text, got null");
    add(mark, anchor, Node::Kind::scalar)->open = false;
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) fail(mark, "unknown alias");
    if (found->second->open) fail(mark, "an alias stands inside the value it names");
    if (expects_key()) fail(mark, "a key must be text, got an alias");
    attach(mark, found->second);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    if (expects_key()) {
      start_entry(mark, value);
      return;
    }
    const NodePtr node = add(mark, anchor, Node::Kind::scalar);
    try {
      node->scalar = tagged_scalar(tag, value);
    } catch (const Error& error) {
      fail(mark, error.what());
    }
    node->open = false;
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    if (expects_key()) fail(mark, "a key must be text, got a list (or a bracket is left open)");
    push(mark, add(mark, anchor, Node::Kind::list));
  }
  void OnSequenceEnd() override { pop(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    if (expects_key()) fail(mark, "a key must be text, got a mapping (or a bracket is left open)");
    push(mark, add(mark, anchor, Node::Kind::mapping));
  }
  void OnMapEnd() override { pop(); }

 private:
  [[noreturn]] void fail(const YAML::Mark& mark, const std::string& message) const {
    fail_at(label_, mark.line + 1, message);
  }
  bool expects_key() const {
    return !stack_.empty() && stack_.back()->kind == Node::Kind::mapping &&
           (stack_.back()->entries.empty() || stack_.back()->entries.back().value != nullptr);
  }
  void start_entry(const YAML::Mark& mark, const std::string& key) {
    const auto [first, is_new] = keys_.back().emplace(key, mark.line + 1);
    if (!is_new) {
      fail(mark,
           "key '" + key + "' stands twice (first on line " + std::to_string(first->second) + ")");
    }
    stack_.back()->entries.push_back({key, mark.line + 1, nullptr});
  }
  NodePtr add(const YAML::Mark& mark, YAML::anchor_t anchor, Node::Kind kind) {
    if (++nodes_ > kMaxValues) fail(mark, "more than " + std::to_string(kMaxValues) + " values");
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->line = mark.line + 1;
    if (anchor != YAML::NullAnchor) anchors_[anchor] = node;
    attach(mark, node);
    return node;
  }
  void attach(const YAML::Mark& mark, const NodePtr& node) {
    if (stack_.empty()) {
      root_ = node;
    } else if (stack_.back()->kind == Node::Kind::list) {
      stack_.back()->entries.push_back({"", mark.line + 1, node});
    } else {
      stack_.back()->entries.back().value = node;
    }
  }
  void push(const YAML::Mark& mark, const NodePtr& node) {
    if (stack_.size() >= std::size_t{kMaxDepth}) {
      fail(mark, "nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    stack_.push_back(node);
    keys_.emplace_back();
  }
  void pop() {
    stack_.back()->open = false;
    stack_.pop_back();
    keys_.pop_back();
  }

  std::string label_;
  NodePtr root_;
  std::vector<NodePtr> stack_;
  std::vector<std::map<std::string, int>> keys_;  // of every open mapping: key -> line
  std::size_t nodes_ = 0;
  std::map<YAML::anchor_t, NodePtr> anchors_;
};

// Bytes of the UTF-8 character at the front of `text`; 0 when there is no valid one.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  const std::size_t length = lead < 0x80   ? 1
                             : lead < 0xC2 ? 0
                             : lead < 0xE0 ? 2
                             : lead < 0xF0 ? 3
                                           : 4;
  if (length <= 1 || lead > 0xF4 || length > text.size()) return length == 1 ? 1 : 0;
  unsigned code = lead & (0x7FU >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return 0;
    code = (code << 6U) | (byte(i) & 0x3FU);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return overlong || surrogate || code > 0x10FFFF ? 0 : length;
}

// 0 when `text` is UTF-8 without control bytes, else the line of the first wrong byte.
int first_bad_line(std::string_view text) {
  int line = 1;
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = static_cast<unsigned char>(text[i]);
    const std::size_t length = utf8_length(text.substr(i));
    const bool control =
        byte == 0x7F || (byte < 0x20 && byte != '\n' && byte != '\t' && byte != '\r');
    if (control || length == 0) return line;
    if (byte == '\n') ++line;
    i += length;
  }
  return 0;
}

NodePtr read_tree(const std::string& text, const std::string& label) {
  if (const int line = first_bad_line(text); line != 0) {
    fail_at(label, line, "not a text file: expected UTF-8 without control bytes");
  }
  std::istringstream stream(text);
  TreeBuilder builder(label);
  try {
    YAML::Parser parser(stream);
    if (parser.HandleNextDocument(builder)) {
      TreeBuilder second(label);
      if (parser.HandleNextDocument(second)) {
        fail_at(label, second.root() ? second.root()->line : 1,
                "expected one YAML document, got several");
      }
    }
  } catch (const YAML::Exception& error) {
    fail_at(label, error.mark.is_null() ? 1 : error.mark.line + 1, "YAML: " + error.msg);
  }
  return builder.root() ? builder.root() : std::make_shared<Node>();
}

}  // namespace

// Expands the tree into values, lines and key orders.
class DocumentWriter {
 public:
  explicit DocumentWriter(YamlDocument& document) : document_(document) {}

  json write(const NodePtr& node, const std::string& path, int depth = 0) {
    if (++values_ > kMaxValues || depth > kMaxDepth) {
      fail_at(document_.label_, node->line, "aliases expand to too many values");
    }
    if (node->kind == Node::Kind::scalar) return node->scalar;
    if (node->kind == Node::Kind::list) return write_list(*node, path, depth);
    json object = json::object();
    auto& keys = document_.keys_[path];
    for (const auto& entry : merged(*node, depth)) {
      keys.push_back(entry.key);
      document_.lines_[path + "/" + entry.key] = entry.line;
      object[entry.key] = write(entry.value, path + "/" + entry.key, depth + 1);
    }
    return object;
  }

 private:
  json write_list(const Node& node, const std::string& path, int depth) {
    json list = json::array();
    for (const auto& entry : node.entries) {
      const std::string below = path + "/" + std::to_string(list.size());
      document_.lines_[below] = entry.line;
      list.push_back(write(entry.value, below, depth + 1));
    }
    return list;
  }

  // The entries of a mapping with `<<` replaced by what it names; its own keys come first and win.
  std::vector<Entry> merged(const Node& node, int depth) {
    if (depth > kMaxDepth) fail_at(document_.label_, node.line, "merge keys nest too deep");
    std::vector<Entry> entries;
    std::set<std::string> seen;
    const auto take = [&](const Entry& entry) {
      if (++values_ > kMaxValues)
        fail_at(document_.label_, node.line, "merge keys expand to too many values");
      if (seen.insert(entry.key).second) entries.push_back(entry);
    };
    for (const auto& entry : node.entries) {
      if (entry.key != "<<") take(entry);
    }
    for (const auto& entry : node.entries) {
      if (entry.key != "<<") continue;
      for (const auto& source : merge_sources(entry)) {
        for (const auto& below : merged(*source, depth + 1)) take(below);
      }
    }
    return entries;
  }

  std::vector<NodePtr> merge_sources(const Entry& entry) const {
    std::vector<NodePtr> sources{entry.value};
    if (entry.value->kind == Node::Kind::list) {
      sources.clear();
      for (const auto& item : entry.value->entries) sources.push_back(item.value);
    }
    for (const auto& source : sources) {
      if (source->kind != Node::Kind::mapping) {
        fail_at(document_.label_, entry.line, "'<<' merges mappings only");
      }
    }
    return sources;
  }

  YamlDocument& document_;
  std::size_t values_ = 0;
};

YamlDocument YamlDocument::parse(const std::string& text, const std::string& label) {
  YamlDocument document;
  document.label_ = label;
  const NodePtr tree = read_tree(text, label);
  document.lines_[""] = tree->line;
  document.root_ = DocumentWriter(document).write(tree, "");
  return document;
}

YamlDocument YamlDocument::load(const std::filesystem::path& path) {
  const std::string label = path.string();
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) fail_at(label, 1, "no such file");
  if (!std::filesystem::is_regular_file(status))
    fail_at(label, 1, "not a regular file; expected a YAML file");
  const std::uintmax_t bytes = std::filesystem::file_size(path, error);
  if (error || bytes > kMaxBytes) {
    fail_at(label, 1,
            error ? "cannot read: " + error.message()
                  : "file of " + std::to_string(bytes) + " bytes; at most 1 MiB is read");
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || (bytes > 0 && !(text << file.rdbuf()))) fail_at(label, 1, "cannot read the file");
  YamlDocument document = parse(text.str(), label);
  if (!document.root_.is_object()) fail_at(label, 1, "expected a mapping of keys to values");
  return document;
}

}  // namespace raingauge
