from setuptools import find_packages, setup

package_name = 'mivla_teleop'

setup(
    name=package_name,
    version='0.1.0',
    packages=find_packages(include=[package_name, f'{package_name}.*']),
    package_data={package_name: ['py.typed']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (f'share/{package_name}', ['package.xml']),
    ],
    install_requires=['setuptools'],
    extras_require={'test': ['pytest']},
    zip_safe=True,
    maintainer='MiVLA deployment suite maintainers',
    maintainer_email='maintainers@mivla.invalid',
    description='Teleoperation, the episode recorder and the episode store.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'expert = mivla_teleop.ros.expert_node:main',
            'recorder = mivla_teleop.ros.recorder_node:main',
        ],
    },
)
