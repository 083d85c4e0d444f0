// A TLS peer with X25519MLKEM768 and nothing else, of Go's standard library: an ML-KEM of its own.
//
//	peer connect HOST:PORT   or   peer listen
//
// KEY, CHAIN and ROOTS name files. A listening peer prints its port; both print the group that was agreed on, or why not.
//
//go:debug tlsmlkem=1
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
)

func main() {
	identity, err := tls.LoadX509KeyPair(os.Getenv("CHAIN"), os.Getenv("KEY"))
	if err != nil {
		panic(err)
	}
	text, err := os.ReadFile(os.Getenv("ROOTS"))
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	config := &tls.Config{
		Certificates:     []tls.Certificate{identity},
		RootCAs:          roots,
		ClientCAs:        roots,
		ClientAuth:       tls.RequireAndVerifyClientCert,
		NextProtos:       []string{"h2"},
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768},
		// Names are not what workloads are known by; the chain is verified below.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}
	var connection *tls.Conn
	if os.Args[1] == "listen" {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			panic(err)
		}
		fmt.Println(listener.Addr().(*net.TCPAddr).Port)
		accepted, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		connection = tls.Server(accepted, config)
	} else {
		dialled, err := net.Dial("tcp", os.Args[2])
		if err != nil {
			panic(err)
		}
		connection = tls.Client(dialled, config)
	}
	if err := connection.Handshake(); err != nil {
		fmt.Println("failed:", err)
		return
	}
	fmt.Println("agreed on", connection.ConnectionState().CurveID)
	// Until the other side ends it.
	connection.Read(make([]byte, 1))
}
