// Two hosts with a cable between them, for tests in Python: says where their networks are, then
// does what each line of its input says, until that ends.
//
//   output  {"networks":["/proc/7/fd/5","/proc/7/fd/7"],"addresses":["10.78.0.1","10.78.0.2"]}
//           or {"unavailable":"why"}
//   input   cut, mend
#include "cable.h"

#include <unistd.h>

#include <cstdio>
#include <iostream>

int main() {
  using wideep::Cable;
  const auto cable = Cable::make();
  if (!cable) {
    fmt::print("{{\"unavailable\":\"{}\"}}\n", cable.error().message);
    return 0;
  }
  fmt::print(
      "{{\"networks\":[\"/proc/{0}/fd/{1}\",\"/proc/{0}/fd/{2}\"],"
      "\"addresses\":[\"{3}\",\"{4}\"]}}\n",
      getpid(), (*cable)->network(0), (*cable)->network(1), Cable::address(0), Cable::address(1));
  std::fflush(stdout);
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "cut") (*cable)->cut();
    if (line == "mend") (*cable)->mend();
  }
  return 0;
}
