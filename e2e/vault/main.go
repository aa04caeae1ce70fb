// Command vault is a real HashiCorp Vault server for the tests, built from its
// Go module because the test machines reach the module proxy and nothing else.
// It is a module of its own so that Vault's several hundred dependencies stay
// out of keyturn's go.mod; it is never linked into keyturn and never shipped.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
