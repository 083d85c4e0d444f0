/** All stories on one cluster, one after the other. Run by `npm run test:cluster`. */
import './manifests.ts';
import './on-kubernetes.ts';
import './own-control-plane.ts';
