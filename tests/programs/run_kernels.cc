// Calls entry points of the kernels without MindSpore, from a file that tests/helpers/kernel_cases.py writes, and prints a
// checksum of the outputs of each call. Every tensor is a separate allocation of exactly its size, so that AddressSanitizer
// detects accesses outside of it.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "crew.h"

using EntryPoint = int (*)(int, void**, int*, int64_t**, const char**, void*, void*);
extern "C" int OpenOneDNN(const char* path, int all_instructions, char* reason, int size);
extern "C" int HasBf16Products();

// Reads one call and prints the name and a checksum (FNV-1a) of the outputs; returns whether there was one.
// Text lines: "name inputs mixed tensors", then per tensor "dtype bytes dimensions...", followed by the tensor's bytes.
bool run_call(std::ifstream& file) {
  std::string name;
  int inputs, mixed, count;
  if (!(file >> name >> inputs >> mixed >> count)) return false;
  std::vector<std::string> dtypes(count);
  std::vector<std::vector<int64_t>> shapes(count);
  std::vector<std::vector<char>> data(count);
  std::vector<void*> tensors;
  std::vector<int> ranks;
  std::vector<int64_t*> sizes;
  std::vector<const char*> types;
  for (int i = 0; i < count; ++i) {
    size_t bytes, rank;
    file >> dtypes[i] >> bytes >> rank;
    shapes[i].resize(rank);
    for (int64_t& side : shapes[i]) file >> side;
    file.ignore(1);
    data[i] = std::vector<char>(bytes);
    file.read(data[i].data(), bytes);
    tensors.push_back(data[i].data());
    ranks.push_back(static_cast<int>(rank));
    sizes.push_back(shapes[i].data());
    types.push_back(dtypes[i].c_str());
  }
  if (mixed && !HasBf16Products()) return true;
  const auto kernel = reinterpret_cast<EntryPoint>(dlsym(RTLD_DEFAULT, name.c_str()));
  if (kernel(count, tensors.data(), ranks.data(), sizes.data(), types.data(), nullptr, nullptr) != 0) {
    throw std::runtime_error(name + " gave an error");
  }
  uint64_t sum = 14695981039346656037u;
  for (int i = inputs; i < count; ++i) {
    for (const char byte : data[i]) sum = (sum ^ static_cast<unsigned char>(byte)) * 1099511628211u;
  }
  std::printf("%s %016lx\n", name.c_str(), sum);
  return true;
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
  std::ifstream file(arguments[1], std::ios::binary);
  while (run_call(file)) continue;
  check_exceptions();
  std::printf("%d threads\n", thread_count());
}
