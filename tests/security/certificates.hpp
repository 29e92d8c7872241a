// Keys and certificates of a test's own, made by openssl(1).
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "base/tls_files.hpp"
#include "tests/support/temp_dir.hpp"

namespace coppice {

// A CA, a server certificate for 127.0.0.1 and localhost, a client certificate; and a client of another CA.
class certificates {
 public:
  certificates() {
    make_ca("ca");
    make_ca("other-ca");
    sign("server", "ca", "subjectAltName=IP:127.0.0.1,DNS:localhost");
    sign("client", "ca", "extendedKeyUsage=clientAuth");
    sign("stranger", "other-ca", "extendedKeyUsage=clientAuth");
  }

  std::string file(const std::string& name) const { return (folder_.path() / name).string(); }
  tls_files server(bool wants_certificates) const {
    return {file("server.crt"), file("server.key"), wants_certificates ? file("ca.crt") : ""};
  }
  // What a client needs that shows the certificate `name`, or none.
  tls_files client(const std::string& name = "", const std::string& ca = "ca") const {
    if (name.empty()) return {"", "", file(ca + ".crt")};
    return {file(name + ".crt"), file(name + ".key"), file(ca + ".crt")};
  }

 private:
  void run(const std::string& command) const {
    EXPECT_EQ(std::system(("cd " + folder_.path().string() + " && openssl " + command + " 2> openssl.log").c_str()), 0)
        << command;
  }
  void make_ca(const std::string& name) const {
    run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=" + name + " -keyout " +
        name + ".key -out " + name + ".crt");
  }
  void sign(const std::string& name, const std::string& ca, const std::string& extension) const {
    run("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=" + name + " -addext " + extension +
        " -keyout " + name + ".key -out " + name + ".csr");
    run("x509 -req -days 2 -copy_extensions copy -CAcreateserial -CA " + ca + ".crt -CAkey " + ca + ".key -in " + name +
        ".csr -out " + name + ".crt");
  }

  temp_dir folder_;
};

}  // namespace coppice
