package vaultkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/keyturn/keyturn/custody/vaultsession"
	"github.com/keyturn/keyturn/keyring"
)

// minVersions is how many versions the mount must keep: a reader that is a
// little behind, or a person who looks what stood there before, must not find
// its version gone.
const minVersions = 5

// Check reports what about the mount would break keyturn, and how to mend it:
// not KV v2, check-and-set not required, versions that vanish. ErrUnavailable
// and ErrDenied mean that it could not be found out.
func (c *Custody) Check(ctx context.Context) error {
	if err := c.checkVersion(ctx); err != nil {
		return fmt.Errorf("vault mount %q: %w", c.mount, err)
	}
	if err := c.checkSettings(ctx); err != nil {
		return fmt.Errorf("vault mount %q: %w", c.mount, err)
	}
	return nil
}

// checkVersion asks where no policy is needed. KV v1 ignores check-and-set
// without a word.
func (c *Custody) checkVersion(ctx context.Context) error {
	reply, err := c.session.Do(ctx, vaultsession.Request{Method: "GET", Path: "sys/internal/ui/mounts/" + c.mount})
	var refusal *vaultsession.Error
	if errors.As(err, &refusal) && refusal.Status == http.StatusForbidden {
		return fmt.Errorf("it is not there, or the token's policy grants nothing in it (make it with: vault secrets enable -path=%s -version=2 kv): %w", c.mount, err)
	}
	if err != nil {
		return err
	}
	var body struct {
		Data struct {
			Type    string            `json:"type"`
			Path    string            `json:"path"`
			Options map[string]string `json:"options"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil {
		return fmt.Errorf("%w: the answer is not Vault's", keyring.ErrUnavailable)
	}
	switch d := body.Data; {
	case d.Path != c.mount+"/":
		return fmt.Errorf("it lies inside the mount %q; name the mount itself", d.Path)
	case d.Type != "kv":
		return fmt.Errorf("it is of type %q; make one of type kv: vault secrets enable -path=NAME -version=2 kv", d.Type)
	case d.Options["version"] != "2":
		return fmt.Errorf("it is KV version 1, which ignores check-and-set; run: vault kv enable-versioning %s", c.mount)
	}
	return nil
}

func (c *Custody) checkSettings(ctx context.Context) error {
	reply, err := c.session.Do(ctx, vaultsession.Request{Method: "GET", Path: c.mount + "/config"})
	if err != nil {
		return fmt.Errorf("whether it requires check-and-set cannot be seen: %w", err)
	}
	var body struct {
		Data struct {
			Required    bool   `json:"cas_required"`
			MaxVersions int    `json:"max_versions"`
			DeleteAfter string `json:"delete_version_after"`
		} `json:"data"`
	}
	if err := json.Unmarshal(reply.Body, &body); err != nil {
		return fmt.Errorf("%w: the answer is not Vault's", keyring.ErrUnavailable)
	}
	var errs []error
	mend := func(what, setting string) {
		errs = append(errs, fmt.Errorf("%s; run: vault write %s/config %s", what, c.mount, setting))
	}
	if !body.Data.Required {
		mend("it does not require check-and-set, so that anybody could overwrite a manifest unseen", "cas_required=true")
	}
	if n := body.Data.MaxVersions; n != 0 && n < minVersions { // 0 is Vault's default, 10
		mend(fmt.Sprintf("it keeps %d versions; %d are needed", n, minVersions), "max_versions=0")
	}
	if d, err := time.ParseDuration(body.Data.DeleteAfter); body.Data.DeleteAfter != "" && (err != nil || d != 0) {
		mend(fmt.Sprintf("it deletes what is older than %s, manifests and keys included", body.Data.DeleteAfter), "delete_version_after=0s")
	}
	return errors.Join(errs...)
}
