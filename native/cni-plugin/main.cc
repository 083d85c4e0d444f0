// The CNI plugin: the last of a node's chain of plugins (CNI specification 1.1). It hands every call to the node agent
// over a Unix socket, with the pod's network namespace as a descriptor, and prints what the specification wants.
//
// While no node agent answers it goes by a file that the agent keeps: pods of enrolled namespaces must not start, every
// other pod may, and so may the pods of culvert itself. It makes no other decision.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "json.h"

#ifndef CULVERT_VERSION
#define CULVERT_VERSION "unknown"
#endif

namespace {

// Error codes of the specification, and ours from 100 on.
enum ErrorCode { kIncompatibleVersion = 1, kInvalidEnvironment = 4, kIo = 5, kDecoding = 6, kInvalidConfig = 7, kTryAgain = 11 };

constexpr const char* kNewestVersion = "1.1.0";
constexpr const char* kVersions[] = {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"};
constexpr const char* kDefaultSocket = "/var/run/culvert/cni.sock";
constexpr const char* kDefaultState = "/var/lib/culvert/cni-state";
// What the node agent takes (src/cni/plugin/request.ts).
constexpr size_t kMaxRequest = 160 * 1024;
// A runtime gives a sandbox minutes; the node agent answers within milliseconds, and waits 5 s for its agent.
constexpr int kAnswerSeconds = 20;

std::string Environment(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c < 0x20) {
      char escaped[8];
      snprintf(escaped, sizeof escaped, "\\u%04x", c);
      out += escaped;
    } else {
      out.push_back(static_cast<char>(c));
    }
  }
  return out + "\"";
}

void Print(const std::string& text) {
  size_t at = 0;
  while (at < text.size()) {
    ssize_t wrote = write(STDOUT_FILENO, text.data() + at, text.size() - at);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;
    at += static_cast<size_t>(wrote);
  }
}

int Fail(const std::string& version, int code, const std::string& message) {
  Print("{\"cniVersion\":" + Quoted(version) + ",\"code\":" + std::to_string(code) + ",\"msg\":" + Quoted("culvert-cni: " + message) + "}\n");
  return 1;
}

bool ReadAll(int fd, size_t limit, std::string* out) {
  char buffer[16384];
  while (true) {
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) return true;
    out->append(buffer, static_cast<size_t>(got));
    if (out->size() > limit) {
      errno = EFBIG;
      return false;
    }
  }
}

bool IsSupported(const std::string& version) {
  for (const char* known : kVersions)
    if (version == known) return true;
  return false;
}

// A value of CNI_ARGS (`KEY=value;…`); "" when it is not there.
std::string Argument(const std::string& args, const std::string& key) {
  size_t at = 0;
  while (at <= args.size()) {
    size_t end = args.find(';', at);
    if (end == std::string::npos) end = args.size();
    if (args.compare(at, key.size() + 1, key + "=") == 0 && at + key.size() + 1 <= end) {
      return args.substr(at + key.size() + 1, end - at - key.size() - 1);
    }
    at = end + 1;
  }
  return "";
}

// What the state file says about a pod.
enum class Standing { kExempt, kEnrolled, kOther };

Standing StandingOf(const std::string& path, const std::string& pod_namespace, const std::string& pod_name) {
  std::string state;
  int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  // Without the file no namespace is known to be enrolled.
  if (fd < 0) return Standing::kOther;
  bool read = ReadAll(fd, 16 * 1024 * 1024, &state);
  close(fd);
  if (!read) return Standing::kOther;
  Standing standing = Standing::kOther;
  size_t at = 0;
  while (at < state.size()) {
    size_t end = state.find('\n', at);
    if (end == std::string::npos) end = state.size();
    std::string line = state.substr(at, end - at);
    at = end + 1;
    if (line == "namespace " + pod_namespace) {
      standing = Standing::kEnrolled;
    } else if (line.compare(0, 7, "exempt ") == 0) {
      size_t space = line.find(' ', 7);
      if (space == std::string::npos || space + 1 == line.size()) continue;
      std::string prefix = line.substr(space + 1);
      if (line.substr(7, space - 7) == pod_namespace && pod_name.compare(0, prefix.size(), prefix) == 0) return Standing::kExempt;
    }
  }
  return standing;
}

struct Answer {
  // "ok", "error", or "unavailable" when nobody answered.
  std::string kind;
  int code = 0;
  std::string text;
};

Answer Unavailable(const std::string& why) { return Answer{"unavailable", 0, why}; }

std::string Errno(const char* what) { return std::string(what) + ": " + strerror(errno); }

bool WaitFor(int fd, short events) {
  struct pollfd poller = {fd, events, 0};
  int ready;
  do {
    ready = poll(&poller, 1, kAnswerSeconds * 1000);
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) errno = ETIMEDOUT;
  return ready > 0;
}

Answer Ask(const std::string& path, const std::string& request, int netns) {
  struct sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return Unavailable("the path of the socket is too long");
  memcpy(address.sun_path, path.data(), path.size());
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return Unavailable(Errno("socket"));
  struct timeval timeout = {kAnswerSeconds, 0};
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
  if (connect(fd, reinterpret_cast<struct sockaddr*>(&address), sizeof address) != 0) {
    Answer answer = Unavailable(Errno(("no node agent at " + path).c_str()));
    close(fd);
    return answer;
  }
  struct iovec data = {const_cast<char*>(request.data()), request.size()};
  struct msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (netns >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    struct cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &netns, sizeof netns);
  }
  Answer answer;
  if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0) {
    answer = Unavailable(Errno("cannot send to the node agent"));
  } else if (!WaitFor(fd, POLLIN)) {
    answer = Unavailable(Errno("no answer of the node agent"));
  } else {
    char buffer[4096];
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    std::string text(buffer, got > 0 ? static_cast<size_t>(got) : 0);
    size_t line = text.find('\n');
    if (line == std::string::npos) {
      answer = Unavailable("the node agent ended without an answer");
    } else {
      std::string head = text.substr(0, line);
      answer.text = text.substr(line + 1);
      answer.kind = head.substr(0, head.find(' '));
      if (answer.kind == "error") answer.code = atoi(head.c_str() + 5);
      if (answer.kind != "ok" && answer.kind != "error") answer.kind = "unavailable";
    }
  }
  close(fd);
  return answer;
}

int PrintVersion(const std::string& input) {
  std::string version = kNewestVersion;
  JsonObject config;
  std::string error;
  if (!input.empty()) {
    if (!config.Parse(input.data(), input.size(), &error)) return Fail(kNewestVersion, kDecoding, error);
    config.Text("cniVersion", &version);
  }
  std::string list;
  for (const char* known : kVersions) list += (list.empty() ? "" : ",") + Quoted(known);
  Print("{\"cniVersion\":" + Quoted(version) + ",\"supportedVersions\":[" + list + "]}\n");
  return 0;
}

// The environment that a command needs (specification §"Parameters").
const char* MissingVariable(const std::string& command) {
  struct Need {
    const char* name;
    bool needed;
  };
  const bool attached = command == "ADD" || command == "DEL" || command == "CHECK";
  const Need needs[] = {
      {"CNI_CONTAINERID", attached},
      {"CNI_NETNS", command == "ADD" || command == "CHECK"},
      {"CNI_IFNAME", attached},
      {"CNI_PATH", command == "GC"},
  };
  for (const Need& need : needs)
    if (need.needed && Environment(need.name).empty()) return need.name;
  return nullptr;
}

// What a command prints when it went well: ADD passes on the result of the plugins before.
int Succeed(const std::string& command, const std::string& version, const JsonObject& config) {
  if (command != "ADD") return 0;
  Slice result;
  if (config.Member("prevResult", &result) && result.data[0] == '{') {
    Print(std::string(result.data, result.size) + "\n");
  } else {
    Print("{\"cniVersion\":" + Quoted(version) + "}\n");
  }
  return 0;
}

bool HasLineBreak(const std::string& text) { return text.find('\n') != std::string::npos; }

int Run() {
  const std::string command = Environment("CNI_COMMAND");
  if (command.empty()) {
    fprintf(stderr, "CNI plugin culvert-cni %s\nCNI protocol versions supported: 0.1.0 to %s\n", CULVERT_VERSION, kNewestVersion);
    return 0;
  }
  std::string input;
  if (!ReadAll(STDIN_FILENO, 16 * 1024 * 1024, &input)) return Fail(kNewestVersion, kIo, Errno("cannot read the configuration"));
  if (command == "VERSION") return PrintVersion(input);
  if (command != "ADD" && command != "DEL" && command != "CHECK" && command != "STATUS" && command != "GC") {
    return Fail(kNewestVersion, kInvalidEnvironment, "unknown CNI_COMMAND: " + command);
  }
  JsonObject config;
  std::string error;
  if (!config.Parse(input.data(), input.size(), &error)) return Fail(kNewestVersion, kDecoding, error);
  std::string version = "0.1.0";
  config.Text("cniVersion", &version);
  if (!IsSupported(version)) {
    return Fail(kNewestVersion, kIncompatibleVersion, "version " + version + " of the configuration is not supported, 0.1.0 to " + kNewestVersion + " are");
  }
  if ((command == "GC" || command == "STATUS") && version != "1.1.0") {
    return Fail(version, kIncompatibleVersion, command + " needs version 1.1.0 of the configuration");
  }
  if (const char* missing = MissingVariable(command)) return Fail(version, kInvalidEnvironment, std::string(missing) + " is not set");
  std::string socket_path = kDefaultSocket;
  std::string state_path = kDefaultState;
  config.Text("socket", &socket_path);
  config.Text("state", &state_path);

  const std::string args = Environment("CNI_ARGS");
  const std::string pod_namespace = Argument(args, "K8S_POD_NAMESPACE");
  const std::string pod_name = Argument(args, "K8S_POD_NAME");
  const Standing standing = StandingOf(state_path, pod_namespace, pod_name);
  if (standing == Standing::kExempt) return Succeed(command, version, config);

  std::string request;
  for (const char* name : {"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"}) {
    if (HasLineBreak(Environment(name))) return Fail(version, kInvalidEnvironment, std::string(name) + " has a line break");
    request += std::string(name) + "=" + Environment(name) + "\n";
  }
  request += "\n" + input;
  if (request.size() > kMaxRequest) return Fail(version, kInvalidConfig, "the configuration is longer than 160 KiB");

  int netns = -1;
  if (command == "ADD") {
    netns = open(Environment("CNI_NETNS").c_str(), O_RDONLY | O_CLOEXEC);
    if (netns < 0) return Fail(version, kInvalidEnvironment, Errno(("CNI_NETNS " + Environment("CNI_NETNS")).c_str()));
  }
  const Answer answer = Ask(socket_path, request, netns);
  if (netns >= 0) close(netns);

  if (answer.kind == "error") return Fail(version, answer.code, answer.text);
  if (answer.kind == "unavailable") {
    fprintf(stderr, "culvert-cni: %s: %s\n", command.c_str(), answer.text.c_str());
    if (command == "ADD" && standing == Standing::kEnrolled) {
      return Fail(version, kTryAgain,
                  "namespace " + pod_namespace + " is in the mesh, and the node agent cannot enrol the pod (" + answer.text +
                      "): look at the culvert-cni pod of this node");
    }
  }
  return Succeed(command, version, config);
}

}  // namespace

int main() { return Run(); }
