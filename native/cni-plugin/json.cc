#include "json.h"

#include <cstring>

namespace {

constexpr int kMaxDepth = 64;

// Reads a text from its beginning; every function leaves the position behind what it has read.
class Scanner {
 public:
  Scanner(const char* text, size_t size) : at_(text), begin_(text), end_(text + size) {}

  void Space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) at_++;
  }

  bool Take(char expected) {
    if (at_ == end_ || *at_ != expected) return false;
    at_++;
    return true;
  }

  bool Value(int depth) {
    if (depth > kMaxDepth || at_ == end_) return false;
    switch (*at_) {
      case '{':
        return Object(depth, nullptr, nullptr);
      case '[':
        return Array(depth);
      case '"':
        return String(nullptr);
      case 't':
        return Word("true");
      case 'f':
        return Word("false");
      case 'n':
        return Word("null");
      default:
        return Number();
    }
  }

  // With `name`, puts the value of the last member of that name into `found`.
  bool Object(int depth, const char* name, Slice* found) {
    if (!Take('{')) return false;
    Space();
    if (Take('}')) return true;
    while (true) {
      std::string key;
      Space();
      if (!String(&key)) return false;
      Space();
      if (!Take(':')) return false;
      Space();
      const char* start = at_;
      if (!Value(depth + 1)) return false;
      if (name != nullptr && key == name) *found = Slice{start, static_cast<size_t>(at_ - start)};
      Space();
      if (Take('}')) return true;
      if (!Take(',')) return false;
    }
  }

  // With `value`, decodes into it.
  bool String(std::string* value) {
    if (!Take('"')) return false;
    while (at_ < end_) {
      unsigned char c = static_cast<unsigned char>(*at_++);
      if (c == '"') return true;
      if (c < 0x20) return false;
      if (c != '\\') {
        if (value) value->push_back(static_cast<char>(c));
        continue;
      }
      if (at_ == end_) return false;
      char escape = *at_++;
      static const char kFrom[] = "\"\\/bfnrt";
      static const char kTo[] = "\"\\/\b\f\n\r\t";
      if (const char* known = escape == '\0' ? nullptr : strchr(kFrom, escape)) {
        if (value) value->push_back(kTo[known - kFrom]);
      } else if (escape == 'u') {
        unsigned code = 0;
        for (int digit = 0; digit < 4; digit++) {
          int nibble = at_ < end_ ? Hex(*at_++) : -1;
          if (nibble < 0) return false;
          code = code * 16 + static_cast<unsigned>(nibble);
        }
        if (value) Append(code, value);
      } else {
        return false;
      }
    }
    return false;
  }

  bool AtEnd() const { return at_ == end_; }
  size_t Position() const { return static_cast<size_t>(at_ - begin_); }

 private:
  bool Array(int depth) {
    at_++;
    Space();
    if (Take(']')) return true;
    while (true) {
      Space();
      if (!Value(depth + 1)) return false;
      Space();
      if (Take(']')) return true;
      if (!Take(',')) return false;
    }
  }

  bool Word(const char* word) {
    size_t length = strlen(word);
    if (static_cast<size_t>(end_ - at_) < length || memcmp(at_, word, length) != 0) return false;
    at_ += length;
    return true;
  }

  bool Digits() {
    const char* start = at_;
    while (at_ < end_ && *at_ >= '0' && *at_ <= '9') at_++;
    return at_ > start;
  }

  bool Number() {
    Take('-');
    if (!Take('0') && !Digits()) return false;
    if (Take('.') && !Digits()) return false;
    if (Take('e') || Take('E')) {
      if (!Take('+')) Take('-');
      return Digits();
    }
    return true;
  }

  static int Hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  }

  // UTF-8 of one code unit. Halves of a pair are kept as they are: no name or path that the plugin reads has any.
  static void Append(unsigned code, std::string* out) {
    if (code < 0x80) {
      out->push_back(static_cast<char>(code));
    } else if (code < 0x800) {
      out->push_back(static_cast<char>(0xc0 | (code >> 6)));
      out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
    } else {
      out->push_back(static_cast<char>(0xe0 | (code >> 12)));
      out->push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3f)));
      out->push_back(static_cast<char>(0x80 | (code & 0x3f)));
    }
  }

  const char* at_;
  const char* begin_;
  const char* end_;
};

}  // namespace

bool JsonObject::Parse(const char* text, size_t size, std::string* error) {
  Scanner scanner(text, size);
  scanner.Space();
  bool good = scanner.Object(0, nullptr, nullptr);
  if (good) scanner.Space();
  if (!good || !scanner.AtEnd()) {
    *error = "not a JSON object: mistake at byte " + std::to_string(scanner.Position());
    return false;
  }
  text_ = text;
  size_ = size;
  return true;
}

bool JsonObject::Member(const char* name, Slice* value) const {
  Slice found;
  Scanner scanner(text_, size_);
  scanner.Space();
  scanner.Object(0, name, &found);
  if (found.data == nullptr) return false;
  *value = found;
  return true;
}

bool JsonObject::Text(const char* name, std::string* value) const {
  Slice slice;
  if (!Member(name, &slice) || slice.data[0] != '"') return false;
  value->clear();
  Scanner scanner(slice.data, slice.size);
  return scanner.String(value);
}
