// Calls entry points of the kernels without MindSpore, from a file that tests/helpers/kernel_cases.py writes, and prints a
// checksum of the outputs of each call. Every tensor is a separate allocation of exactly its size, so that AddressSanitizer
// detects accesses outside of it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "crew.h"

#define ENTRY_POINT(name) int name(int, void**, int*, int64_t**, const char**, void*, void*)
extern "C" {
ENTRY_POINT(Match);
ENTRY_POINT(NMS);
ENTRY_POINT(Network);
ENTRY_POINT(NetworkGradient);
ENTRY_POINT(Preprocess);
ENTRY_POINT(RoIAlign);
ENTRY_POINT(RoIAlignGrad);
int OpenOneDNN(const char* path, int all_instructions, char* reason, int size);
int HasBf16Products();
}
const std::map<std::string, decltype(&Match)> kEntryPoints = {
    {"Match", Match}, {"NMS", NMS}, {"Network", Network}, {"NetworkGradient", NetworkGradient}, {"Preprocess", Preprocess},
    {"RoIAlign", RoIAlign}, {"RoIAlignGrad", RoIAlignGrad}};

struct Call {
  std::string name;
  int inputs;
  bool mixed;
  std::vector<std::string> dtypes;
  std::vector<std::vector<int64_t>> shapes;
  std::vector<std::vector<char>> data;

  // Calls the kernel and returns a checksum (FNV-1a) of its outputs.
  uint64_t run() {
    const int count = static_cast<int>(data.size());
    std::vector<void*> tensors;
    std::vector<int> ranks;
    std::vector<int64_t*> sizes;
    std::vector<const char*> types;
    for (int i = 0; i < count; ++i) {
      tensors.push_back(data[i].data());
      ranks.push_back(static_cast<int>(shapes[i].size()));
      sizes.push_back(shapes[i].data());
      types.push_back(dtypes[i].c_str());
    }
    if (kEntryPoints.at(name)(count, tensors.data(), ranks.data(), sizes.data(), types.data(), nullptr, nullptr) != 0) {
      throw std::runtime_error(name + " gave an error");
    }
    uint64_t sum = 14695981039346656037u;
    for (int i = inputs; i < count; ++i) {
      for (const char byte : data[i]) sum = (sum ^ static_cast<unsigned char>(byte)) * 1099511628211u;
    }
    return sum;
  }
};

// Text lines: "name inputs mixed tensors" per call, then per tensor "dtype bytes dimensions...", followed by the tensor's bytes.
std::vector<Call> read_calls(const char* path) {
  std::vector<Call> calls;
  std::ifstream file(path, std::ios::binary);
  Call call;
  for (int count; file >> call.name >> call.inputs >> call.mixed >> count; calls.push_back(call)) {
    call.dtypes.resize(count), call.shapes.resize(count), call.data.resize(count);
    for (int i = 0; i < count; ++i) {
      size_t bytes, rank;
      file >> call.dtypes[i] >> bytes >> rank;
      call.shapes[i].resize(rank);
      for (int64_t& side : call.shapes[i]) file >> side;
      file.ignore(1);
      call.data[i] = std::vector<char>(bytes);
      file.read(call.data[i].data(), bytes);
    }
  }
  return calls;
}

// The caller gets an exception of a loop once. It does not affect later loops.
void check_exceptions() {
  for (const bool throws : {true, false}) {
    std::vector<int> done(1000, 0);
    std::string message = "none";
    try {
      Crew::run([&](Crew& crew) {
        crew.share(1000, [&](int64_t i) {
          if (throws && i % 3 == 0) throw std::runtime_error("from a loop");
          done[i] = 1;
        });
      });
    } catch (const std::runtime_error& error) {
      message = error.what();
    }
    int sum = 0;
    for (const int one : done) sum += one;
    if (message != (throws ? "from a loop" : "none") || (sum == 1000) == throws) throw std::logic_error("exceptions: " + message);
  }
}

onednn::PrimitivePtr primitive() { return onednn::product(onednn::kF32, onednn::kF32, 2, 2, 2, {}); }

// Runs after the destructors of the kernels' static objects, when other threads may still call kernels.
void look_up_at_exit() {
  if (primitive() == nullptr) std::abort();
}

int main(int, char** arguments) {
  char reason[500];
  if (OpenOneDNN(arguments[2], 1, reason, sizeof reason) != 0) throw std::runtime_error(reason);
  std::atexit(look_up_at_exit);
  primitive();
  for (Call& call : read_calls(arguments[1])) {
    if (!call.mixed || HasBf16Products()) std::printf("%s %016lx\n", call.name.c_str(), call.run());
  }
  check_exceptions();
  std::printf("%d threads\n", thread_count());
}
