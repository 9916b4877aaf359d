// SPDX-License-Identifier: Apache-2.0
// Masks made by anybody: a plan file (DESIGN 5.2) judged like our own, after the same checks.
#include <algorithm>
#include <filesystem>

#include "data/plan_file.h"
#include "methods/method.h"
#include "methods/plan_heads.h"

namespace raingauge {
namespace {

class FromFile : public Method {
 public:
  explicit FromFile(std::string path) : path_(std::move(path)), file_(read_plan(path_)) {}

  // The record's heads are looked up by their original numbers.
  Plan plan(const RecordView& record, State& /*state*/) const override {
    if (file_.plan.tokens != record.tokens()) {
      throw Unsupported(path_ + ": the plan is for " + std::to_string(file_.plan.tokens) +
                        " tokens, the record has " + std::to_string(record.tokens()));
    }
    std::vector<std::int64_t> rows;
    for (const int head : record.info->heads) {
      const auto found = std::find(file_.heads.begin(), file_.heads.end(), head);
      if (found == file_.heads.end()) {
        throw Unsupported(path_ + ": no plan for head " + std::to_string(head));
      }
      rows.push_back(found - file_.heads.begin());
    }
    return select_heads(file_.plan, rows);
  }

 private:
  std::string path_;
  PlanFile file_;
};

}  // namespace

MethodEntry plan_file_method() {
  return {
      {"plan_file",
       "a plan read from an HDF5 file, made by any program",
       "",
       {{.name = "path",
         .type = ParamType::path,
         .default_value = nullptr,
         .help = "plan file, relative to the YAML file (inline arms: the current folder)",
         .required = true}}},
      [](const nlohmann::json& params, const MethodOptions& options) -> std::unique_ptr<Method> {
        const std::filesystem::path path = params.at("path").get<std::string>();
        const auto full =
            path.is_absolute() ? path : std::filesystem::path(options.base_folder) / path;
        return std::make_unique<FromFile>(full.string());
      }};
}

}  // namespace raingauge
