package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/keyturn/keyturn/configs"
	"github.com/keyturn/keyturn/keyring"
)

// Exit codes.
const (
	exitFailed      = 1
	exitUnreachable = 2
	exitUsage       = 64
)

// exitError is an error with its exit code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usagef is an error of the command line itself.
func usagef(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// unreachablef is an error that trying again may mend.
func unreachablef(format string, args ...any) error {
	return &exitError{exitUnreachable, fmt.Errorf(format, args...)}
}

// exitCode is 0 for nil, 1 for what nobody classified.
func exitCode(err error) int {
	var e *exitError
	var faults configs.Faults
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.code
	case errors.As(err, &faults) && ofFlags(faults):
		return exitUsage
	case errors.Is(err, keyring.ErrUnavailable):
		return exitUnreachable
	}
	return exitFailed
}

// ofFlags reports whether nothing is wrong but values of flags: these overlay
// the configuration, and so its loader finds them.
func ofFlags(faults configs.Faults) bool {
	for _, f := range faults {
		if !strings.HasPrefix(f.Where, "--") {
			return false
		}
	}
	return true
}
