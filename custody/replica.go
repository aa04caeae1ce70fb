package custody

import "fmt"

// Replica is a daemon among those of an issuer, as its audit heads are kept.
type Replica struct {
	Issuer string
	Name   string
}

// Check reports names that cannot be parts of a path.
func (r Replica) Check() error {
	if err := CheckIssuer(r.Issuer); err != nil {
		return err
	}
	if CheckIssuer(r.Name) != nil {
		return fmt.Errorf("replica name %q: use 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or a digit", r.Name)
	}
	return nil
}
