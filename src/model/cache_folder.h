// The folder of packed weights as a whole: it stays below a size. When a new file needs room, those
// that were not used for the longest go first, but never one in use: a process that has loaded a
// file holds a shared lock on it for as long as it lives, so that its restart finds it again.
//
// Thread: any, and any number of processes.
#pragma once

#include "base/file.h"
#include "base/result.h"

#include <cstdint>
#include <string>
#include <string_view>

namespace wideep::model {

inline constexpr std::string_view kCacheSuffix = ".wdcache";

// Marks the file as used now, and as in use until the result is gone. kNotFound if there is none.
Result<File> use_cache_file(const std::string& path);

// Makes the folder if need be, and removes files until `bytes` more fit below `bytes_max` (0: half
// of the disk), among them what was left half-written by processes that are gone. kExhausted if
// those in use leave no room.
Status make_cache_room(const std::string& folder, int64_t bytes, int64_t bytes_max);

}  // namespace wideep::model
