/** What the node agent says about an enrolled pod: the uid of its Pod object and its WorkloadInfo (spec §1). */
export interface PodInfo {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  readonly serviceAccount: string;
}
