// Prints what coppiced answers to GET /v1/openapi.json.
#include <iostream>

#include "api/openapi.hpp"

int main() {
  std::cout << coppice::openapi_document().dump(2) << std::endl;
}
