package daemon

import (
	"context"
	"errors"

	"github.com/keyturn/keyturn/keyring"
	"github.com/keyturn/keyturn/rotator"
)

// countingStore tells metrics of writes that another replica's came before.
// They are no errors, but many of them tell that replicas are in each other's way.
type countingStore struct {
	rotator.Store
	conflicted func(issuer string)
}

// Save implements rotator.Store.
func (s countingStore) Save(ctx context.Context, issuer string, next *keyring.Snapshot, version int) (int, error) {
	version, err := s.Store.Save(ctx, issuer, next, version)
	if errors.Is(err, keyring.ErrConflict) {
		s.conflicted(issuer)
	}
	return version, err
}
