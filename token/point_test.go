package token

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// smallOrderKeys are all spellings of the eight points, with the sign of x both
// ways, as readers that do not mind take them.
func smallOrderKeys(t *testing.T) [][]byte {
	t.Helper()
	var out [][]byte
	for _, y := range []string{
		"00" + strings.Repeat("00", 31),                                    // y = 0
		"01" + strings.Repeat("00", 31),                                    // y = 1
		"ec" + strings.Repeat("ff", 30) + "7f",                             // y = -1
		"ed" + strings.Repeat("ff", 30) + "7f",                             // p, for 0
		"ee" + strings.Repeat("ff", 30) + "7f",                             // p + 1, for 1
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", // of order 8
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", // its negative
	} {
		key, err := hex.DecodeString(y)
		if err != nil {
			t.Fatal(err)
		}
		other := slices.Clone(key)
		other[31] |= 0x80
		out = append(out, key, other)
	}
	return out
}

func TestParseSetRefusesSmallOrder(t *testing.T) {
	identity := append([]byte{1}, make([]byte, 63)...) // R = O, S = 0
	for _, key := range smallOrderKeys(t) {
		forged := false // proves that the key is as bad as we say
		for i := 0; i < 500 && !forged; i++ {
			forged = ed25519.Verify(key, fmt.Append(nil, i), identity)
		}
		if !forged {
			t.Errorf("%x: no message verifies: not of small order", key)
		}
		doc, err := json.Marshal(map[string]any{"keys": []any{map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": b64.EncodeToString(key)}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseSet(doc); !errors.Is(err, ErrSet) || !strings.Contains(err.Error(), "member x") {
			t.Errorf("%x: ParseSet = %v", key, err)
		}
	}
}

func TestSoundPointTakesKeys(t *testing.T) {
	for range 50 {
		if err := soundPoint(newKey(t, "EdDSA").Public().(ed25519.PublicKey)); err != nil {
			t.Error(err)
		}
	}
}
