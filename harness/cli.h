// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace raingauge {

// Parses the command line and runs the subcommand. Exit codes: 0 done; 1 usage or configuration error;
// 2 some row is incorrect, invalid_plan, not_finite or failed; 3 nothing matched.
int run_cli(int argc, char** argv);

}  // namespace raingauge
