// Command steps passes crash points and prints a line after each.
package main

import (
	"fmt"

	"github.com/keyturn/keyturn/internal/crashpoint"
)

func main() {
	for _, name := range []string{"a", "b", "a", "c", "a"} {
		crashpoint.Here(name)
		fmt.Println(name)
	}
}
