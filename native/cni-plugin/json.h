// Finds members of a JSON object as they stand in the text. Strict (RFC 8259), bounded in depth, without copies: what the
// plugin passes on, it passes on byte for byte.
#pragma once
#include <cstddef>
#include <string>

struct Slice {
  const char* data = nullptr;
  size_t size = 0;
};

// A JSON text that is one object.
class JsonObject {
 public:
  // False when the text is not one well-formed object; `error` then says where.
  bool Parse(const char* text, size_t size, std::string* error);

  // The text of a member's value; false when there is none. Of several with one name the last counts, as in Go.
  bool Member(const char* name, Slice* value) const;

  // A member's value, which must be a text; false otherwise.
  bool Text(const char* name, std::string* value) const;

 private:
  const char* text_ = nullptr;
  size_t size_ = 0;
};
