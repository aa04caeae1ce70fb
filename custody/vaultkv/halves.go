package vaultkv

import (
	"context"
	"crypto"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/custody"
	"github.com/keyturn/keyturn/custody/internal/half"
	"github.com/keyturn/keyturn/custody/vaultsession"
	"github.com/keyturn/keyturn/internal/crashpoint"
	"github.com/keyturn/keyturn/keyring"
)

const (
	keysName = "keys"
	keyField = "private_key"
)

// Create generates a key pair, proves it and deposits its private half. The
// handle is the kid. A half of that kid is never replaced: fs.ErrExist. After
// ErrUnavailable the half may be there, now or a little later, with nobody
// naming it: an orphan, which the rotator finds by List.
func (c *Custody) Create(ctx context.Context, issuer string, alg keyring.Algorithm, rsaBits int) (keyring.JWK, string, error) {
	if err := custody.CheckIssuer(issuer); err != nil {
		return keyring.JWK{}, "", err
	}
	k, err := half.Generate(c.generate, alg, rsaBits)
	if err != nil {
		return keyring.JWK{}, "", err
	}
	crashpoint.Here("create.generated")
	if err := c.deposit(ctx, issuer, k); err != nil {
		return keyring.JWK{}, "", fmt.Errorf("deposit kid %q of %q: %w", k.JWK().Kid, issuer, err)
	}
	return k.JWK(), k.JWK().Kid, nil
}

func (c *Custody) deposit(ctx context.Context, issuer string, k *half.Key) error {
	text, err := half.Encode(k)
	if err != nil {
		return err
	}
	defer clear(text)
	path := c.path("data", issuer, keysName, k.JWK().Kid)
	_, doubt, err := c.put(ctx, path, map[string]string{keyField: string(text)}, 0)
	// Who may create and not update is refused with a 403 where a half is.
	if err == nil || (!doubt && !errors.Is(err, errRefused) && !errors.Is(err, keyring.ErrDenied)) {
		return err
	}
	ctx, cancel := settle(ctx)
	defer cancel()
	e, readErr := c.read(ctx, path)
	switch {
	case readErr != nil && doubt:
		return fmt.Errorf("whether it was stored is unknown: %w", errors.Join(err, readErr))
	case readErr != nil || e.version == 0:
		return err
	}
	stored, textErr := e.text(keyField)
	if doubt && textErr == nil && subtle.ConstantTimeCompare([]byte(stored), text) == 1 {
		return nil
	}
	return fs.ErrExist
}

// List is the kids of the issuer's private halves, sorted; those included of
// which only a tombstone is left, so that Destroy can finish.
func (c *Custody) List(ctx context.Context, issuer string) ([]string, error) {
	if err := custody.CheckIssuer(issuer); err != nil {
		return nil, err
	}
	reply, err := c.session.Do(ctx, vaultsession.Request{Method: "LIST", Path: c.path("metadata", issuer, keysName)})
	if err != nil {
		return nil, fmt.Errorf("list halves of %q: %w", issuer, err)
	}
	if reply.Missing() {
		return nil, nil
	}
	var body struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil || body.Data.Keys == nil {
		return nil, fmt.Errorf("list halves of %q: %w: the answer is not Vault's", issuer, keyring.ErrUnavailable)
	}
	kids := slices.DeleteFunc(body.Data.Keys, func(name string) bool { return strings.HasSuffix(name, "/") })
	slices.Sort(kids)
	return kids, nil
}

// Signer reads a private half and checks it against the manifest's public one.
// Errors are keyring's: ErrNoKey, ErrMismatch (also of one that cannot be
// read), ErrUnavailable, ErrDenied.
func (c *Custody) Signer(ctx context.Context, issuer string, k keyring.Key) (crypto.Signer, error) {
	s, err := c.signer(ctx, issuer, k)
	if err != nil {
		return nil, fmt.Errorf("private half of kid %q of %q: %w", k.JWK.Kid, issuer, err)
	}
	return s, nil
}

func (c *Custody) signer(ctx context.Context, issuer string, k keyring.Key) (*half.Key, error) {
	if err := errors.Join(custody.CheckIssuer(issuer), custody.CheckHandle(k.Handle)); err != nil {
		return nil, err
	}
	e, err := c.read(ctx, c.path("data", issuer, keysName, k.Handle))
	switch {
	case err != nil:
		return nil, err
	case e.fields == nil:
		return nil, keyring.ErrNoKey
	}
	text, err := e.text(keyField)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", keyring.ErrMismatch, err)
	}
	return half.Parse([]byte(text), k.JWK)
}

// Destroy destroys every version of a private half, deletes its metadata, and
// returns nil only when both read 404; also when they did before. A try is not
// cancelled with ctx, for a cancelled deletion can corrupt the entry; whether
// another one follows is up to ctx. It can be called again.
func (c *Custody) Destroy(ctx context.Context, issuer, handle string) error {
	if err := errors.Join(custody.CheckIssuer(issuer), custody.CheckHandle(handle), context.Cause(ctx)); err != nil {
		return err
	}
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), insistFor)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		gone, err := c.destroyOnce(whole, issuer, handle)
		switch {
		case gone:
			return nil
		case err == nil:
			err = fmt.Errorf("%w: it is still there", keyring.ErrUnavailable)
		case !vaultsession.Uncertain(err):
			return fmt.Errorf("destroy kid %q of %q: %w", handle, issuer, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("destroy kid %q of %q: %w", handle, issuer, errors.Join(context.Cause(ctx), err))
		case <-whole.Done():
			return fmt.Errorf("destroy kid %q of %q: %w", handle, issuer, err)
		case <-time.After(wait):
		}
	}
}

// destroyOnce goes through the steps and reports whether a reading afterwards
// showed nothing. A crash between the steps leaves a tombstone that List shows.
func (c *Custody) destroyOnce(ctx context.Context, issuer, handle string) (bool, error) {
	versions, err := c.versions(ctx, issuer, handle)
	if err != nil {
		return false, err
	}
	if versions != nil {
		// Deleting the metadata alone would do, if it were not interrupted.
		destroy := vaultsession.Request{Method: "PUT", Path: c.path("destroy", issuer, keysName, handle), Body: map[string]any{"versions": versions}}
		if _, err := c.session.Do(ctx, destroy); err != nil {
			return false, err
		}
		crashpoint.Here("destroy.destroyed")
		if _, err := c.session.Do(ctx, vaultsession.Request{Method: "DELETE", Path: c.path("metadata", issuer, keysName, handle)}); err != nil {
			return false, err
		}
		if versions, err = c.versions(ctx, issuer, handle); err != nil || versions != nil {
			return false, err
		}
	}
	e, err := c.read(ctx, c.path("data", issuer, keysName, handle))
	return err == nil && e.version == 0 && e.fields == nil, err
}

// versions are those that the metadata knows; nil where there is none.
func (c *Custody) versions(ctx context.Context, issuer, handle string) ([]int, error) {
	path := c.path("metadata", issuer, keysName, handle)
	reply, err := c.session.Do(ctx, vaultsession.Request{Method: "GET", Path: path})
	if err != nil || reply.Missing() {
		return nil, err
	}
	var body struct {
		Data struct {
			Current  int              `json:"current_version"`
			Versions map[int]struct{} `json:"versions"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil {
		return nil, fmt.Errorf("read %s: %w: the answer is not Vault's", path, keyring.ErrUnavailable)
	}
	out := []int{max(body.Data.Current, 1)} // never empty: Vault refuses to destroy nothing
	for v := range body.Data.Versions {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out, nil
}
