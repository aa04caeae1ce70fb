package token

import (
	"errors"
	"math/big"
	"slices"
)

// soundPoint refuses Ed25519 points that nobody's private key has. Below a
// point of small order anyone can sign: R = O, S = 0 verifies for one message
// in eight at least. A y of p or more is a second spelling of another point
// (RFC 8032 §5.1.3), and readers differ on whether they take it.
func soundPoint(octets []byte) error {
	le := slices.Clone(octets)
	le[len(le)-1] &= 0x7f // the highest bit is the sign of x
	slices.Reverse(le)
	y := new(big.Int).SetBytes(le)
	p := new(big.Int).Lsh(big.NewInt(1), 255)
	p.Sub(p, big.NewInt(19))
	switch {
	case y.Cmp(p) >= 0:
		return errors.New("member x is no Ed25519 key: its y is not below 2^255-19 (RFC 8032 §5.1.3)")
	case smallOrder(y, p):
		return errors.New("member x is an Ed25519 point of small order: anyone can sign for it; whoever published this was deceived")
	}
	return nil
}

// smallOrder reports whether y belongs to a point whose order divides the
// cofactor 8, with either sign of x: y = ±1 have order 1 and 2, y = 0 has 4. A
// point of order 8 doubles to y = 0, which is x² = -y²; with the curve's
// equation and d = -121665/121666 (RFC 8032 §5.1) that is
// 121666(2y² - 1) = 121665y⁴.
func smallOrder(y, p *big.Int) bool {
	one := big.NewInt(1)
	if y.Sign() == 0 || y.Cmp(one) == 0 || y.Cmp(new(big.Int).Sub(p, one)) == 0 {
		return true
	}
	square := new(big.Int).Mul(y, y)
	left := new(big.Int).Lsh(square, 1)
	left.Mul(left.Sub(left, one), big.NewInt(121666))
	right := new(big.Int).Mul(square, square)
	right.Mul(right, big.NewInt(121665))
	return left.Sub(left, right).Mod(left, p).Sign() == 0
}
