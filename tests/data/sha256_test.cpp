// SPDX-License-Identifier: Apache-2.0
#include "data/sha256.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "data/error.h"

namespace raingauge {
namespace {

std::string digest(const std::string& text, bool portable) {
  Sha256 hash(portable);
  hash.update(text.data(), text.size());
  return hash.finish();
}

class Sha256Test : public ::testing::TestWithParam<bool> {};

// The examples of FIPS 180-4's companion (one block, two blocks, a million letters) and the empty
// message.
TEST_P(Sha256Test, PublishedVectors) {
  EXPECT_EQ(digest("", GetParam()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest("abc", GetParam()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", GetParam()),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest("abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmn"
                   "hijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu",
                   GetParam()),
            "cf5b16a778af8380036ce59e7b0492370b249b11e8f07a51afac45037afee9d1");
  EXPECT_EQ(digest(std::string(1000000, 'a'), GetParam()),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_P(Sha256Test, PiecesGiveTheSameDigest) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 37);
  const std::string whole = digest(text, GetParam());
  for (const std::size_t piece : {1U, 3U, 55U, 56U, 63U, 64U, 65U, 127U}) {
    Sha256 hash(GetParam());
    for (std::size_t at = 0; at < text.size(); at += piece) {
      hash.update(text.data() + at, std::min(piece, text.size() - at));
    }
    EXPECT_EQ(hash.finish(), whole) << piece;
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, Sha256Test, ::testing::Bool());

// Every length around the padding's edges, portable against the processor's instructions.
TEST(Sha256Paths, AgreeAtEveryLength) {
  for (std::size_t length = 0; length < 300; ++length) {
    const std::string text(length, static_cast<char>('a' + length % 26));
    ASSERT_EQ(digest(text, true), digest(text, false)) << length;
  }
}

TEST(Sha256Files, HashesAFileAndRefusesAMissingOne) {
  const std::string path = ::testing::TempDir() + "sha256_test_file";
  std::ofstream(path, std::ios::binary) << "abc";
  EXPECT_EQ(sha256_file(path), sha256_hex("abc", 3));
  std::remove(path.c_str());
  EXPECT_THROW(sha256_file(path), Error);
}

}  // namespace
}  // namespace raingauge
