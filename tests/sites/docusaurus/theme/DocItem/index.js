// The version of the page, for the beacon.
import Head from '@docusaurus/Head';
import DocItem from '@theme-original/DocItem';

export default function VersionedDocItem(props) {
  return (
    <>
      <Head>
        <meta name="headcount:version" content={props.content.metadata.version} />
      </Head>
      <DocItem {...props} />
    </>
  );
}
