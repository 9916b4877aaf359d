// SPDX-License-Identifier: Apache-2.0
#include "harness/cli.h"

int main(int argc, char** argv) { return raingauge::run_cli(argc, argv); }
