// Number of threads that a kernel starts.

#include <climits>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <stdexcept>
#include <string>

#include "crew.h"

#ifdef __linux__
#include <sched.h>
#endif

// Number of processors that corresponds to the CPU quota of a process's cgroup and its parent cgroups, rounded up; INT_MAX
// without a quota. `cgroups` is the path of the process's /proc/self/cgroup, `root` is /sys/fs/cgroup.
extern "C" int QuotaProcessors(const char* cgroups, const char* root) {
  double least = INT_MAX;
  std::ifstream file(cgroups);
  // Lines are number:controllers:/path; in version 2 the controllers are empty.
  for (std::string number, controllers, path; getline(getline(getline(file, number, ':'), controllers, ':'), path);) {
    const std::string mount = root + ("/" + controllers);
    for (std::string folder = mount + path; folder.size() >= mount.size(); folder.resize(folder.rfind('/'))) {
      double quota = 0, period = 0;  // microseconds; "max" or -1 without a quota
      if (!(std::ifstream(folder + "/cpu.max") >> quota >> period)) {
        std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
        std::ifstream(folder + "/cpu.cfs_period_us") >> period;
      }
      if (quota > 0 && period > 0) least = std::min(least, std::ceil(quota / period));
    }
  }
  return static_cast<int>(least);
}

int thread_count() {
  static const char* const text = std::getenv("FASTER_RCNN_NUM_THREADS");
  static char* end = nullptr;
  static const long requested = text && *text ? std::strtol(text, &end, 10) : 0;
  static const int quota = QuotaProcessors("/proc/self/cgroup", "/sys/fs/cgroup");
  if (end && (*end || requested < 1)) throw std::runtime_error("FASTER_RCNN_NUM_THREADS must be a whole number above 0");
  if (requested > 0) return static_cast<int>(requested);
  int processors = static_cast<int>(std::thread::hardware_concurrency());
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) processors = CPU_COUNT(&set);
#endif
  return std::max(std::min(quota, processors), 1);
}
