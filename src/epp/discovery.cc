#include "epp/discovery.h"

#include "base/file.h"
#include "base/log.h"
#include "base/yaml.h"

#include <charconv>
#include <filesystem>
#include <set>

namespace wideep::epp {
namespace {

constexpr std::chrono::milliseconds kWatchInterval{100};

Result<uint16_t> parse_port(const Json* value, const std::string& where) {
  std::string text;
  if (value != nullptr && value->is_string()) text = *value->as_string();
  if (value != nullptr && value->is_int()) text = value->dump();
  uint16_t port = 0;
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (text.empty() || code != std::errc{} || end != text.data() + text.size() || port == 0) {
    return invalid_argument("{}: port must be a number from 1 to 65535", where);
  }
  return port;
}

Result<EndpointSpec> parse_endpoint(const Json& item, size_t number) {
  Parameters members(fmt::format("endpoints[{}]", number), &item);
  const std::string name = members.text("name", "");
  const std::string name_space = members.text("namespace", "default");
  EndpointSpec spec;
  spec.address.host = members.text("address", "");
  WD_ASSIGN_OR_RETURN(spec.address.port, parse_port(members.any("port"), members.owner()));
  if (const Json* labels = members.any("labels")) {
    if (!labels->is_object()) return invalid_argument("{}: labels must be a map", members.owner());
    for (const auto& [key, value] : *labels->as_object()) {
      if (!value.is_string())
        return invalid_argument("{}: label '{}' must be text", members.owner(), key);
      spec.labels[key] = *value.as_string();
    }
  }
  WD_TRY(members.finish());
  if (name.empty() || spec.address.host.empty()) {
    return invalid_argument("{}: name and address are needed", members.owner());
  }
  spec.name = name_space + "/" + name;
  return spec;
}

}  // namespace

Result<std::vector<EndpointSpec>> parse_endpoints(std::string_view yaml) {
  WD_ASSIGN_OR_RETURN(const Json document, parse_yaml(yaml));
  const Json* list = document.find("endpoints");
  if (list == nullptr || !(list->is_array() || list->is_null()))
    return invalid_argument("no list 'endpoints'");
  std::vector<EndpointSpec> specs;
  std::set<std::string> names;
  if (list->is_null()) return specs;
  for (const Json& item : *list->as_array()) {
    WD_ASSIGN_OR_RETURN(EndpointSpec spec, parse_endpoint(item, specs.size()));
    if (!names.insert(spec.name).second)
      return invalid_argument("endpoint '{}' appears twice", spec.name);
    specs.push_back(std::move(spec));
  }
  return specs;
}

class FileDiscovery::Watch : public std::enable_shared_from_this<Watch> {
 public:
  Watch(net::EventLoop& loop, EndpointPicker& picker, FileDiscoveryOptions options)
      : loop_(loop), picker_(picker), options_(std::move(options)) {}

  Status load() {
    seen_ = stamp();
    WD_ASSIGN_OR_RETURN(const std::string text, read_file(options_.path, kDiscoveryBytesMax));
    auto specs = parse_endpoints(text);
    if (!specs) return with_context(specs.error(), options_.path);
    log_info("{}: {} endpoints", options_.path, specs->size());
    picker_.set_endpoints(std::move(*specs));
    return {};
  }

  void watch() {
    if (!options_.watch_file) return;
    loop_.post_after(kWatchInterval, [self = shared_from_this()] {
      if (self->stopped_) return;
      self->reload_if_changed();
      self->watch();
    });
  }

  void stop() { stopped_ = true; }

 private:
  // A rename over the file changes its time or its size.
  std::string stamp() const {
    std::error_code code;
    const auto time = std::filesystem::last_write_time(options_.path, code);
    const auto size = std::filesystem::file_size(options_.path, code);
    return code ? std::string() : fmt::format("{} {}", time.time_since_epoch().count(), size);
  }

  void reload_if_changed() {
    if (stamp() == seen_) return;
    if (const Status loaded = load(); !loaded) {
      log_error("{}; the endpoints stay as they were", loaded.error().message);
    }
  }

  net::EventLoop& loop_;
  EndpointPicker& picker_;
  const FileDiscoveryOptions options_;
  std::string seen_;
  bool stopped_ = false;
};

FileDiscovery::FileDiscovery(net::EventLoop& loop,
                             EndpointPicker& picker,
                             FileDiscoveryOptions options)
    : watch_(std::make_shared<Watch>(loop, picker, std::move(options))) {
  watch_->watch();
}

FileDiscovery::~FileDiscovery() {
  watch_->stop();
}

Status FileDiscovery::load() {
  return watch_->load();
}

}  // namespace wideep::epp
